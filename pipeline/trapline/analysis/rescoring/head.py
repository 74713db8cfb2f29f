"""Train a new head on labels: a linear classifier of stored embeddings, in one small file.

Logistic regression with a penalty, whose strength is chosen by cross-validation between cameras. All examples are in
memory, twice: 50,000 of 768 numbers are 300 MB.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from trapline.analysis.rescoring import regression
from trapline.analysis.rescoring.regression import Regression
from trapline.errors import UsageError, in_one_line
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

FOLDS = 5
# Inverse strengths of the penalty on standardised embeddings, tried from the strongest on.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Used where there is only one camera, so that there is no cross-validation.
_DEFAULT_STRENGTH = 1e-2

# What an embedding depends on besides its image; a head fits embeddings of the same kind only.
_EMBEDDING_FACTS = ("weights_sha256", "architecture", "size", "rgb_mean", "rgb_std", "preprocessing")


@dataclass(frozen=True)
class Head:
    """A linear classifier of embeddings.

    Attributes:
        weight: float32 [C, D].
        bias: float32 [C]; -inf for a class that it cannot name.
        classes: names, in the order of the logits.
        embedding: settings of the embeddings that it takes.
        cameras: those whose images it was trained on.
        temperature: that its logits are to be divided by; None if it was not calibrated.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    embedding: Mapping[str, Any]
    cameras: tuple[str, ...] = ()
    temperature: float | None = None

    def logits(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return logits float32 [N, C] of embeddings float32 [N, D]."""
        return embeddings @ self.weight.T + self.bias

    @property
    def digest(self) -> str:
        """Return the SHA-256 of weights, biases and names, in hex."""
        names = json.dumps(self.classes).encode()
        return hashlib.sha256(self.weight.tobytes() + self.bias.tobytes() + names).hexdigest()

    def to_bytes(self) -> bytes:
        """Return a safetensors file; what is not a tensor is JSON in its header."""
        plain = {name: getattr(self, name) for name in ("classes", "embedding", "cameras", "temperature")}
        metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in plain.items()}
        data: bytes = save_tensors({"weight": self.weight, "bias": self.bias}, {"format": "trapline-head", **metadata})
        return data

    def refuse_other(self, results: Fingerprint, url: str) -> None:
        """Raise UsageError if results hold embeddings of another kind than the head takes."""
        mine, theirs = Fingerprint(self.embedding), Fingerprint(embedding_facts(results))
        if mine.digest != theirs.digest:
            raise UsageError(
                f"{url}: is for embeddings with different settings ({'; '.join(mine.differences(theirs))}); "
                "fit one to these with --labels"
            )


@dataclass(frozen=True)
class Fit:
    """A head, with the results of its cross-validation.

    Attributes:
        head: trained on all examples.
        strength: inverse strength of the penalty.
        log_loss: cross-validated, in nats per image; None with too few cameras.
        converged: whether the optimiser came to its end.
        folds: heads that were each trained without some cameras.
        fold_of: camera -> the one of them that has not seen it.
    """

    head: Head
    strength: float
    log_loss: float | None
    converged: bool
    folds: tuple[Head, ...]
    fold_of: Mapping[str, int]

    def unseen_logits(
        self, embeddings: npt.NDArray[np.float32], cameras: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return logits [N, C] by heads not trained on the image's camera, and where there is one, bool [N]."""
        values = self.head.logits(embeddings)
        learned = set(self.head.cameras)
        honest = np.array([camera not in learned or camera in self.fold_of for camera in cameras], bool)
        fold = np.array([self.fold_of.get(camera, -1) for camera in cameras])
        for number, head in enumerate(self.folds):
            values[fold == number] = head.logits(embeddings[fold == number])
        return values, honest


def fit(
    embeddings: npt.NDArray[np.float32], species: Sequence[str], cameras: Sequence[str], results: Fingerprint
) -> Fit:
    """Train a head.

    Args:
        embeddings: float32 [N, D].
        species: of each, N; they become the classes, by name.
        cameras: of each, N.
        results: how the embeddings were computed.

    Raises:
        UsageError: there is only one species.
    """
    classes = tuple(sorted(set(species)))
    if len(classes) < 2:
        raise UsageError(f"labels: all images to train on are {classes[0]!r}; a head needs two species at least")
    truth = np.searchsorted(np.array(classes), np.array(species, dtype=str))
    scaler = StandardScaler().fit(embeddings)
    scaled = scaler.transform(embeddings).astype(np.float32)
    strength, log_loss, models, fold_of = _cross_validate(scaled, truth, len(classes), cameras)
    model = regression.fit(scaled, truth, len(classes), strength)

    def unscaled(fitted: Regression, seen: Sequence[str]) -> Head:
        weight = fitted.weight / scaler.scale_
        bias = fitted.bias - weight @ scaler.mean_
        return Head(weight.astype(np.float32), bias.astype(np.float32), classes, embedding_facts(results), tuple(seen))

    everyone = sorted(set(cameras))
    folds = [
        unscaled(fitted, [camera for camera in everyone if fold_of.get(camera) != number])
        for number, fitted in enumerate(models)
    ]
    return Fit(unscaled(model, everyone), strength, log_loss, model.converged, tuple(folds), fold_of)


def load(url: str) -> Head:
    """Load a head that `to_bytes` made.

    Raises:
        UsageError: the file is none.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    data = store.read_many([url])[0]
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        plain = {name: json.loads(header[name]) for name in ("classes", "embedding", "cameras", "temperature")}
        head = Head(tensors["weight"], tensors["bias"], **plain)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UsageError(f"{url}: is no head of Trapline's ({in_one_line(error)}); make one with --labels") from error
    return replace(head, classes=tuple(head.classes), cameras=tuple(head.cameras))


def embedding_facts(results: Fingerprint) -> dict[str, Any]:
    """Return the settings that the embeddings of these results depend on."""
    return {name: results.facts[name] for name in _EMBEDDING_FACTS if name in results.facts}


def _cross_validate(
    scaled: npt.NDArray[np.float32], truth: npt.NDArray[np.intp], count: int, cameras: Sequence[str]
) -> tuple[float, float | None, list[Regression], dict[str, int]]:
    """Return the best strength, its log loss at cameras that were left out, and each fold's model and cameras.

    LogisticRegressionCV would penalise a fold for species that only its own cameras have, whatever the strength; here
    they do not count. Weaker and weaker penalties pay off for a while, and then no more: there the search ends.
    """
    names = np.array(cameras, dtype=object)
    places = len(set(cameras))
    folds = list(GroupKFold(min(FOLDS, places)).split(scaled, truth, names)) if places > 1 else []
    folds = [
        (rest, left) for rest, left in folds if np.isin(truth[left], truth[rest]).any() and len(set(truth[rest])) > 1
    ]
    if not folds:
        return _DEFAULT_STRENGTH, None, [], {}
    fold_of = {str(camera): number for number, (_, left) in enumerate(folds) for camera in names[left]}
    best: tuple[float, float, list[Regression]] = (np.inf, 0.0, [])
    models: list[Regression | None] = [None] * len(folds)
    for strength in STRENGTHS:
        fitted = [
            regression.fit(scaled[rest], truth[rest], count, strength, start)
            for start, (rest, _) in zip(models, folds, strict=True)
        ]
        losses = [model.losses(scaled[left], truth[left]) for model, (_, left) in zip(fitted, folds, strict=True)]
        loss = float(np.concatenate(losses).mean())
        if loss >= best[0]:
            break
        best = (loss, strength, fitted)
        models = [*fitted]
    return best[1], best[0], best[2], fold_of
