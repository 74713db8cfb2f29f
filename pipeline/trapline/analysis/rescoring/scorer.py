"""New rows from a batch of stored rows: head, temperature, species list and roll-up, in this order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import logsumexp

from trapline.analysis.rescoring import species_list
from trapline.analysis.rescoring.calibration import logits, softmax
from trapline.analysis.rescoring.head import Head
from trapline.analysis.rescoring.species_list import Prior
from trapline.analysis.rescoring.taxonomy import RollUp
from trapline.model.predictions import Predictions
from trapline.results.clip_pooling import ClipSums, FrameSums, sum_frames
from trapline.results.rows import matrix, model_columns
from trapline.results.schema import CROP_FIELDS, IMAGE_FIELDS, Columns

_WORD = pa.dictionary(pa.int32(), pa.string())


def _described(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


_PRIOR_FIELDS = [
    _described("prior_mass", pa.float32(), "probability of all listed species, before the others went; low: unlisted")
]
_TAXON_FIELDS = [
    _described("taxon", _WORD, "the lowest taxon that is probable enough; null where none is"),
    _described("rank", _WORD, "of the taxon: species, genus, family or class"),
    _described("taxon_probability", pa.float32(), "of the taxon: the sum over its species"),
]


class _Scores(NamedTuple):
    """Scores of rows that have a prediction, before taxa.

    Attributes:
        probabilities: float32 [N, C].
        energy: float32 [N].
        mass: `prior_mass`, float32 [N, 1], or [N, 0] without a prior.
    """

    probabilities: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scorer:
    """Compute new rows from stored ones.

    Attributes:
        classes: names of the C classes.
        top_k: how many of them are listed.
        head: computes logits from embeddings; without one the stored probabilities are used.
        temperature: that logits are divided by.
        prior: which classes can occur where.
        roll_up: the taxa above the classes.
        threshold: probability that a taxon must reach.
        crops: whether there are rows of crops among those of images.
    """

    classes: tuple[str, ...]
    top_k: int
    head: Head | None = None
    temperature: float | None = None
    prior: Prior | None = None
    roll_up: RollUp | None = None
    threshold: float = 0.8
    crops: bool = False

    @property
    def reads(self) -> list[str]:
        """Return the columns of the stored rows that it needs."""
        keys = [field.name for field in self._keys]
        return [*keys, "precision", *(["embedding"] if self.head else ["probabilities", "energy"])]

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of the new rows."""
        added = [*(_PRIOR_FIELDS if self.prior else []), *(_TAXON_FIELDS if self.roll_up else [])]
        return pa.schema([*self._keys, *self._columns.model_fields, *added])

    def sums(self, rows: pa.RecordBatch) -> ClipSums:
        """Return the sums of new scores over frames and over their crops, for `__call__`.

        New rows have no embedding; in its place stands the prior mass, which a clip has the mean of, too.

        Args:
            rows: with the columns that it `reads`.
        """
        frames = rows.filter(rows.column("frame_seconds").is_valid())
        mask, usable = self._usable(frames)
        scores = self._scores(usable, Counter())
        predictions = Predictions(scores.probabilities, scores.energy, scores.mass, {}, _in_bf16(usable))
        return sum_frames(frames, mask, predictions if len(usable) else None)

    def __call__(
        self, rows: pa.RecordBatch, remarks: Counter[str], clips: Mapping[str, FrameSums] | None = None
    ) -> pa.Table:
        """Return the new rows, one per row and in their order; null where nothing was predicted.

        Args:
            rows: with the columns that it `reads`.
            remarks: counts images with something to report, by what it is.
            clips: `clip_pooling.total` of the `sums` of a file, of which a clip's own row is the mean; a clip without
                any is computed from what is stored in its own row.
        """
        mask, usable = self._usable(rows)
        scores = _with_means(self._scores(usable, remarks), usable, clips or {})
        added: list[pa.Array] = [pa.array(scores.mass[:, 0])] if self.prior else []
        if self.roll_up:
            species = np.array(self.classes, dtype=object)[scores.probabilities.argmax(axis=1)]
            taxa = self.roll_up(scores.probabilities, list(species), self.threshold)
            remarks.update(f"named by {rank}" for rank in taxa[1].to_pylist())
            added += taxa
        nothing = np.empty((len(usable), 0), np.float32)
        predictions = Predictions(scores.probabilities, scores.energy, nothing, {}, _in_bf16(usable))
        place = pa.array(np.cumsum(mask) - 1, mask=~mask)
        arrays = [
            *(rows.column(field.name) for field in self._keys),
            *model_columns(mask, predictions if len(usable) else None, self._columns),
            *(column.take(place) for column in added),
        ]
        return pa.table(
            [_typed(array, field.type) for array, field in zip(arrays, self.schema, strict=True)], self.schema
        )

    def patterns(self, rows: pa.RecordBatch) -> set[str]:
        """Return the deployments of the species list that hold for one of the rows."""
        return self.prior.applying(rows.column("shard"), rows.column("key")) if self.prior else set()

    @property
    def _keys(self) -> list[pa.Field]:
        # All that decoding knew: the jobs that come after `classify` come after `rescore` too.
        return [*IMAGE_FIELDS, *(CROP_FIELDS if self.crops else [])]

    @property
    def _columns(self) -> Columns:
        return Columns(self.classes, 0, {}, self.top_k, probabilities=True, embedding="none")

    def _usable(self, rows: pa.RecordBatch) -> tuple[npt.NDArray[np.bool_], pa.RecordBatch]:
        """Return which rows have a prediction, bool [N], and these; one that is not finite is none."""
        vector = rows.column("embedding" if self.head else "probabilities")
        mask = np.array(vector.is_valid().to_numpy(zero_copy_only=False))
        mask[mask] = np.isfinite(matrix(vector.drop_null(), self._width)).all(axis=1)
        return mask, rows.filter(pa.array(mask))

    @property
    def _width(self) -> int:
        return int(self.head.weight.shape[1]) if self.head else len(self.classes)

    def _scores(self, rows: pa.RecordBatch, remarks: Counter[str]) -> _Scores:
        probabilities, energy = self._probabilities(rows, remarks)
        if not self.prior:
            return _Scores(probabilities, energy, np.empty((len(rows), 0), np.float32))
        allowed = self.prior.allowed(rows.column("shard"), rows.column("key"))
        probabilities, mass = species_list.condition(probabilities, allowed)
        remarks["kept all species"] += int(allowed.all(axis=1).sum())
        remarks["had no listed species at all"] += int((mass == 0).sum())
        return _Scores(probabilities, energy, mass[:, None])

    def _probabilities(
        self, rows: pa.RecordBatch, remarks: Counter[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return probabilities [N, C], and the energy [N] of the logits as they are before temperature and prior."""
        if self.head:
            embeddings = matrix(rows.column("embedding"), self._width)
            values = self.head.logits(embeddings.astype(np.float32, copy=False))
            return softmax(values, self.temperature or 1.0), logsumexp(values, axis=1)
        probabilities = matrix(rows.column("probabilities"), self._width).astype(np.float32, copy=False)
        energy = rows.column("energy").to_numpy(zero_copy_only=False)
        if self.temperature is None:
            return probabilities, energy
        remarks["had a probability stored as 0, taken for 1.2e-38"] += int((probabilities == 0).any(axis=1).sum())
        return softmax(logits(probabilities), self.temperature), energy


def _with_means(scores: _Scores, rows: pa.RecordBatch, clips: Mapping[str, FrameSums]) -> _Scores:
    """Put means in the place of the scores of clips' own rows."""
    own = rows.column("frame_seconds").is_null()
    if "crop" in rows.schema.names:
        own = pc.and_(own, rows.column("crop").is_null())
    own = pc.and_(own, pc.is_in(rows.column("key"), pa.array([*clips], pa.string())))
    places = np.flatnonzero(own.to_numpy(zero_copy_only=False))
    if not len(places):
        return scores
    scores = _Scores(*(np.array(each) for each in scores))  # what was read from a file cannot be written to
    for place in places:
        sums = clips[rows.column("key")[int(place)].as_py()]
        scores.probabilities[place] = sums.probabilities / sums.count
        scores.energy[place] = sums.energy / sums.count
        scores.mass[place] = sums.embedding / sums.count
    return scores


def _in_bf16(rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Return which rows were computed from what was computed in bfloat16, bool [N]."""
    return np.asarray(pc.equal(rows.column("precision").cast(pa.string()), "bf16").to_numpy(zero_copy_only=False))


def _typed(array: pa.Array, kind: pa.DataType) -> pa.Array:
    encode = pa.types.is_dictionary(kind) and not pa.types.is_dictionary(array.type)
    return pc.cast(array.dictionary_encode() if encode else array, kind)
