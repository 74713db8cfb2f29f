"""Select shards by age, partition and part; sort them, the newest first."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import gcd
from urllib.parse import unquote

from trapline.errors import UsageError
from trapline.sources.shards import Discovery, Shard
from trapline.storage import store

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Part:
    """One of several parts of an archive.

    A hash of its result's path below OUTPUT decides to which part a shard belongs. So this never changes, however the
    archive grows, and wherever archive and OUTPUT are mounted.

    Attributes:
        number: of this part, from 1.
        of: the number of parts.
    """

    number: int
    of: int

    def holds(self, name: str) -> bool:
        """Return whether the result at this path below OUTPUT belongs to this part."""
        return self._hash(name) % self.of == self.number - 1

    def overlaps(self, other: "Part") -> bool:
        """Return whether a shard may belong to both parts (Chinese remainder theorem)."""
        return (self.number - other.number) % gcd(self.of, other.of) == 0

    @staticmethod
    def _hash(name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def select(
    found: Discovery,
    since: datetime | None = None,
    where: Sequence[str] = (),
    part: Part | None = None,
    output: str = "",
) -> Discovery:
    """Return the selected shards, and the number of the others.

    Args:
        found: what the inputs hold.
        since: leave out shards that were added or changed before this time; shards without a date stay.
        where: `name=value` of Hive partitions; a shard must match each name, with any one of its values.
        part: leave out shards of other parts; None for all.
        output: where results go; only `part` needs it.

    Raises:
        UsageError: no shard lies in these partitions.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for partition in where:
        name, _, value = partition.partition("=")
        wanted[name].add(value)
    within = [shard for shard in found.shards if _is_within(shard, wanted)]
    if not within:
        names = sorted({name for shard in found.shards for name in partitions(shard)})
        known = f"its partitions are by {', '.join(names)}" if names else "it has no folders of the form name=value"
        raise UsageError(f"--where {' '.join(where)}: no shard of the input lies in it; {known}")
    root = store.absolute(output) if part else ""
    shards = [
        shard
        for shard in within
        if not (since and shard.arrived and shard.arrived < since)
        and (part is None or part.holds(shard.output.removeprefix(root).lstrip("/")))
    ]
    return replace(found, shards=shards, excluded=len(found.shards) - len(shards))


def newest_first(shards: Iterable[Shard]) -> list[Shard]:
    """Sort shards by the time when they were added, then by name; shards without a date come last."""
    by_name = sorted(shards, key=lambda shard: shard.uri)
    return sorted(by_name, key=lambda shard: shard.arrived or _LONG_AGO, reverse=True)


def partitions(shard: Shard) -> dict[str, str]:
    """Return the `name=value` folders that a shard lies in, a folder of loose images included; values unescaped."""
    folder = shard.uri if shard.format == "folder" else shard.uri.rpartition("/")[0]
    parts = (segment.partition("=") for segment in folder.split("/"))
    return {name: unquote(value) for name, equals, value in parts if equals and name}


def _is_within(shard: Shard, wanted: dict[str, set[str]]) -> bool:
    has = partitions(shard) if wanted else {}
    return all(has.get(name) in values for name, values in wanted.items())
