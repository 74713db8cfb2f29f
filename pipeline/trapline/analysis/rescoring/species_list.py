"""Region priors: which species can occur, everywhere or in a deployment. The others get probability 0.

The prior consists of ones and zeros: by Bayes' rule, the posterior is the probability of a listed species divided by
that of all listed species, the `prior_mass`. A low mass shows pictures of something that is not on the list, whose
posterior looks as certain as any other.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trapline.analysis import csv_input
from trapline.analysis.spelling import composed, respelled
from trapline.errors import UsageError

EVERYWHERE = ""


@dataclass(frozen=True)
class SpeciesList:
    """The species that a CSV file lists.

    Attributes:
        url: of the file.
        species: deployment pattern -> species; those of EVERYWHERE can occur in each deployment.
    """

    url: str
    species: dict[str, frozenset[str]]

    @property
    def digest(self) -> str:
        """Return a SHA-256 of the list, in hex; the order of its lines does not matter."""
        plain = sorted((pattern, sorted(names)) for pattern, names in self.species.items())
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def unknown(self, classes: Sequence[str]) -> list[str]:
        """Return the listed species that the model does not know, by name."""
        return sorted(self._names - set(classes) - respelled(self._names, classes).keys())

    def spelled(self, classes: Sequence[str]) -> dict[str, set[str]]:
        """Return the species by deployment pattern, spelled as the model spells them."""
        as_model = respelled(self._names, classes)
        return {pattern: {as_model.get(name, name) for name in names} for pattern, names in self.species.items()}

    @property
    def _names(self) -> frozenset[str]:
        return frozenset().union(*self.species.values())


def read(url: str) -> SpeciesList:
    """Read a CSV file with the columns species and, if it differs by place, deployment (or site).

    A deployment is a pattern (`*` stands for anything) for one or more whole segments of an image's path (its shard and
    the path inside it) without the picture's own name: `site=12`, `site=12/cam3`, `cam*`, `card-a.zip`. A line without
    one holds everywhere.

    Raises:
        UsageError: a line names no species, or the file has both columns.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["species"], ["deployment", "site"])
    if table.num_columns > 2:
        raise UsageError(f"{url}: has both a column 'deployment' and a column 'site'; leave one")
    patterns = table.column(1).to_pylist() if table.num_columns == 2 else [None] * len(table)
    species: dict[str, set[str]] = defaultdict(set)
    for position, (name, pattern) in enumerate(zip(table.column("species").to_pylist(), patterns, strict=True)):
        if not name:
            raise UsageError(f"{url}, line {csv_input.line(table, position)}: names no species; fill it in")
        species[(pattern or EVERYWHERE).strip("/")].add(name)
    return SpeciesList(url, {pattern: frozenset(names) for pattern, names in species.items()})


@dataclass(frozen=True)
class Prior:
    """A species list over the classes of a model.

    Attributes:
        masks: deployment pattern -> bool [C], which classes can occur.
    """

    masks: dict[str, npt.NDArray[np.bool_]]

    @classmethod
    def of(cls, listed: SpeciesList, classes: Sequence[str]) -> "Prior":
        """Return the prior for probabilities in the order of these classes.

        Raises:
            UsageError: the model knows none of the species, or none of those of one deployment.
        """
        species = listed.spelled(classes)
        masks = {pattern: np.array([name in names for name in classes]) for pattern, names in species.items()}
        everywhere = masks.get(EVERYWHERE, np.zeros(len(classes), bool))
        for pattern, mask in masks.items():
            if not (mask | everywhere).any():
                where = f" for {pattern!r}" if pattern else ""
                raise UsageError(
                    f"{listed.url}: lists no species{where} that is one of the model's {len(classes):,}, "
                    f"such as {classes[0]!r}; name species as the model does"
                )
        return cls({pattern: mask | everywhere for pattern, mask in masks.items()})

    def allowed(self, shards: pa.Array, keys: pa.Array) -> npt.NDArray[np.bool_]:
        """Return which classes can occur where images were taken, bool [N, C]; all of them where no line applies.

        Args:
            shards: URI of the shard of each image.
            keys: path of each image inside its shard.
        """
        places = _places(shards, keys)
        if not len(places):
            return np.empty((0, self._width), bool)
        masks = np.stack([self._mask(place) for place in places.dictionary.to_pylist()])
        by_row: npt.NDArray[np.bool_] = masks[places.indices.to_numpy()]
        return by_row

    def applying(self, shards: pa.Array, keys: pa.Array) -> set[str]:
        """Return the deployment patterns that hold where one of the images was taken; arguments as of `allowed`."""
        return {pattern for place in _places(shards, keys).dictionary.to_pylist() for pattern in self._holding(place)}

    def _mask(self, place: str) -> npt.NDArray[np.bool_]:
        found = [self.masks[pattern] for pattern in self._holding(place)]
        if EVERYWHERE in self.masks:
            found.append(self.masks[EVERYWHERE])
        nothing_said = np.ones(self._width, bool)
        mask: npt.NDArray[np.bool_] = np.logical_or.reduce(found) if found else nothing_said
        return mask

    def _holding(self, place: str) -> list[str]:
        path = composed(f"/{place.strip('/')}/")
        return [pattern for pattern, regex in self._regexes.items() if regex.search(path)]

    @cached_property
    def _regexes(self) -> dict[str, re.Pattern[str]]:
        """By pattern; `[`, `]` and `?` are characters of names."""
        texts = {pattern: ".*".join(map(re.escape, composed(pattern).split("*"))) for pattern in self.masks}
        return {pattern: re.compile(f"(?s)/{text}/") for pattern, text in texts.items() if pattern}

    @property
    def _width(self) -> int:
        return len(next(iter(self.masks.values())))


def _places(shards: pa.Array, keys: pa.Array) -> pa.DictionaryArray:
    """Return the folders of images: an archive has a million times as many images as places."""
    folders = pc.replace_substring_regex(keys, "(?s)[^/]*$", "")
    return pc.dictionary_encode(pc.binary_join_element_wise(shards.cast(pa.string()), folders, "/"))


def condition(
    probabilities: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return probabilities given that the species is one of those allowed.

    Args:
        probabilities: [N, C].
        allowed: [N, C], at least one in each row.

    Returns:
        Probabilities [N, C], 0 where not allowed, and the mass [N] that the allowed had before. Where that is 0, all
        allowed are as probable as each other.
    """
    kept = np.where(allowed, probabilities, np.float32(0))
    mass = kept.sum(axis=1, dtype=np.float64)
    kept[mass == 0] = allowed[mass == 0]
    total = np.where(mass == 0, allowed.sum(axis=1), mass)
    return (kept / total[:, None]).astype(np.float32), mass.astype(np.float32)
