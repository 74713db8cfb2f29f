"""Select the shards that a run is about, by age and by partition; order them, the newest first."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import unquote

from trapline.errors import UsageError
from trapline.sources.shards import Discovery, Shard

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def select(found: Discovery, since: datetime | None = None, where: Sequence[str] = ()) -> Discovery:
    """Return the shards that are selected, and count the others.

    Args:
        found: what the inputs hold.
        since: leave out shards that were added or changed before this; those that the store does not date stay.
        where: `name=value` of Hive partitions; values of the same name are alternatives, names are conditions.

    Raises:
        UsageError: no shard lies in these partitions.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for part in where:
        name, _, value = part.partition("=")
        wanted[name].add(value)
    within = [shard for shard in found.shards if _is_within(shard, wanted)]
    if not within:
        names = sorted({name for shard in found.shards for name in partitions(shard)})
        known = f"its partitions are by {', '.join(names)}" if names else "it has no folders of the form name=value"
        raise UsageError(f"--where {' '.join(where)}: no shard of the input lies in it; {known}")
    shards = [shard for shard in within if not (since and shard.arrived and shard.arrived < since)]
    return replace(found, shards=shards, excluded=len(found.shards) - len(shards))


def newest_first(shards: Iterable[Shard]) -> list[Shard]:
    """Sort shards by the time when they were added, then by name; those that the store does not date come last."""
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
