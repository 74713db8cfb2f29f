"""Which shards of the inputs a run is about: those that are new enough, those of some partitions, the newest first."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import unquote

from trapline.errors import UsageError
from trapline.sources.shards import Discovery, Shard

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def select(found: Discovery, since: datetime | None = None, where: Sequence[str] = ()) -> Discovery:
    """The shards that are meant; the others are counted.

    Args:
        found: what the inputs hold.
        since: leave out what came, or was changed, before this; what the store does not date is never left out.
        where: `name=value` of Hive partitions; values of the same name are alternatives, names are conditions.

    Raises:
        UsageError: no shard is of these partitions.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    for part in where:
        name, _, value = part.partition("=")
        wanted[name].add(value)
    within = [shard for shard in found.shards if _is_within(shard, wanted)]
    if not within:
        names = sorted({name for shard in found.shards for name in partitions(shard)})
        known = f"its partitions are by {', '.join(names)}" if names else "it has no folders of the form name=value"
        raise UsageError(f"--where {' '.join(where)}: no shard of the input is of that; {known}")
    shards = [shard for shard in within if not (since and shard.arrived and shard.arrived < since)]
    return replace(found, shards=shards, passed_over=len(found.shards) - len(shards))


def newest_first(shards: Iterable[Shard]) -> list[Shard]:
    """By when they came, and by name where that is the same; what the store does not date comes last."""
    by_name = sorted(shards, key=lambda shard: shard.uri)
    return sorted(by_name, key=lambda shard: shard.arrived or _LONG_AGO, reverse=True)


def partitions(shard: Shard) -> dict[str, str]:
    """The `name=value` folders that a shard lies in, a folder of loose images itself included; values unescaped."""
    folder = shard.uri if shard.format == "folder" else shard.uri.rpartition("/")[0]
    parts = (segment.partition("=") for segment in folder.split("/"))
    return {name: unquote(value) for name, equals, value in parts if equals and name}


def _is_within(shard: Shard, wanted: dict[str, set[str]]) -> bool:
    has = partitions(shard) if wanted else {}
    return all(has.get(name) in values for name, values in wanted.items())
