"""Roll-up: if no species is probable enough, the lowest genus, family or class that is.

The probability of a taxon is the sum over its species. A species that the taxonomy does not name counts for itself
only.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.analysis import csv_input
from trapline.analysis.spelling import respelled
from trapline.errors import UsageError

# From the narrowest; species come before them.
RANKS = ("genus", "family", "class")

# Sums of float32 fall short of a threshold that they reach on paper: 0.2 + 0.5 gives 0.69999999.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Taxonomy:
    """The taxa above the species of one CSV file.

    Attributes:
        url: of the file.
        above: species -> its taxon at each of RANKS; None if the file does not name one.
    """

    url: str
    above: dict[str, tuple[str | None, ...]]

    @property
    def digest(self) -> str:
        """Return a SHA-256 of the taxonomy, in hex; the order of its lines does not matter."""
        return hashlib.sha256(json.dumps(sorted(self.above.items())).encode()).hexdigest()

    def unplaced(self, classes: Sequence[str]) -> list[str]:
        """Return classes of a model that have no taxon above them."""
        return [name for name, taxa in zip(classes, self.places(classes), strict=True) if not any(taxa)]

    def places(self, classes: Sequence[str]) -> list[tuple[str | None, ...]]:
        """Return the taxa above each class of a model, at each of RANKS."""
        as_model = respelled(self.above, classes)
        above = {as_model.get(name, name): taxa for name, taxa in self.above.items()}
        return [above.get(name, (None,) * len(RANKS)) for name in classes]


def read(url: str) -> Taxonomy:
    """Read a CSV file with the columns species, and genus, family and class as far as it has them.

    Raises:
        UsageError: it has none of the ranks, names a species twice, or puts a taxon under two.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["species"], RANKS)
    if table.num_columns == 1:
        raise UsageError(f"{url}: has none of the columns {', '.join(RANKS)}; add one")
    nothing = [None] * len(table)
    species = table.column("species").to_pylist()
    taxa = [table.column(rank).to_pylist() if rank in table.column_names else nothing for rank in RANKS]
    above: dict[str, tuple[str | None, ...]] = {}
    for position, (name, *places) in enumerate(zip(species, *taxa, strict=True)):
        if not name:
            raise UsageError(f"{url}, line {csv_input.line(table, position)}: names no species; fill it in")
        if name in above:
            raise UsageError(f"{url}, line {csv_input.line(table, position)}: names {name!r} a second time; leave one")
        above[name] = tuple(places)
    _refuse_two_parents(url, above)
    return Taxonomy(url, above)


def _refuse_two_parents(url: str, above: dict[str, tuple[str | None, ...]]) -> None:
    """Raise UsageError unless a genus lies in one family and a family in one class: mass grows by rank."""
    for lower, upper in ((0, 1), (0, 2), (1, 2)):
        parents: dict[str, str] = {}
        for places in above.values():
            child, parent = places[lower], places[upper]
            if child and parent and parents.setdefault(child, parent) != parent:
                raise UsageError(
                    f"{url}: puts {RANKS[lower]} {child!r} under both {parents[child]!r} and {parent!r}; correct it"
                )


@dataclass(frozen=True)
class RollUp:
    """A taxonomy over the classes of a model.

    Attributes:
        taxa: by rank, the names of its taxa.
        members: by rank, float32 [C, taxa]: 1 where the class is of the taxon.
    """

    taxa: tuple[tuple[str, ...], ...]
    members: tuple[npt.NDArray[np.float32], ...]

    @classmethod
    def of(cls, taxonomy: Taxonomy, classes: Sequence[str]) -> "RollUp":
        """Return the roll-up for probabilities in the order of these classes.

        Raises:
            UsageError: the taxonomy knows none of them.
        """
        places = taxonomy.places(classes)
        if not any(any(place) for place in places):
            raise UsageError(
                f"{taxonomy.url}: places none of the {len(classes):,} species of the model, such as {classes[0]!r}; "
                "name species as the model does"
            )
        taxa, members = [], []
        for rank in range(len(RANKS)):
            names = sorted({place[rank] for place in places} - {None})  # type: ignore[type-var]
            taxa.append(tuple(str(name) for name in names))
            rows = [[float(place[rank] == name) for name in names] for place in places]
            members.append(np.array(rows, np.float32).reshape(len(classes), len(names)))
        return cls(tuple(taxa), tuple(members))

    def __call__(
        self, probabilities: npt.NDArray[np.float32], species: Sequence[str], threshold: float
    ) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Return the lowest taxon that is probable enough, for each row of probabilities [N, C].

        Args:
            probabilities: each row sums to 1, or to 0 where nothing is known.
            species: the most probable class of each row.
            threshold: what a taxon's probability must reach.

        Returns:
            taxon (string), rank (string; `species` and RANKS) and taxon_probability (float32), N each; null where no
            taxon of any rank reaches the threshold.
        """
        count = len(probabilities)
        best = probabilities.max(axis=1, initial=0.0)
        taxon = np.array(species, dtype=object)
        rank = np.full(count, "species", dtype=object)
        open_ = best < threshold - _TOLERANCE
        for name, taxa, members in zip(RANKS, self.taxa, self.members, strict=True):
            if not taxa or not open_.any():
                continue
            mass = probabilities[open_] @ members
            reached = mass.max(axis=1) >= threshold - _TOLERANCE
            rows = np.flatnonzero(open_)[reached]
            winners = mass[reached].argmax(axis=1)
            taxon[rows] = np.array(taxa, dtype=object)[winners]
            rank[rows] = name
            best[rows] = np.minimum(mass[reached, winners], 1.0)  # rounding may pass 1
            open_[rows] = False
        return (
            pa.array(taxon, pa.string(), mask=open_),
            pa.array(rank, pa.string(), mask=open_),
            pa.array(best, mask=open_),
        )
