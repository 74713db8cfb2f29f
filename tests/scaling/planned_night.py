"""The plan of a night over an archive of many shards, half of which are done, as a process that watches itself.

`python -m tests.scaling.planned_night FOLDER SHARDS`; prints what it took, as JSON. Shards and results are names of a few
small files, and the cache of footers is written as if each result had one.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

from jobs.benchmark.growth import held_alone
from trapline.results import ledger
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import Result
from trapline.sources.selection import Part, select
from trapline.sources.shards import Shard, discover
from trapline.storage import store

_MARK = Fingerprint({"weights_sha256": "ab" * 32})
_PARTS = 8
# A file may have 65,000 names on ext4.
_NAMES = 50_000


@dataclass(frozen=True)
class Planned:
    """What a plan took; seconds are of a processor.

    Attributes:
        shards: of the archive.
        listing: the input.
        remembering: to list OUTPUT, and to write the cache of footers.
        selecting: one of eight parts.
        comparing: to list OUTPUT, to read the cache, and to compare them.
        listed_bytes: that the process grew by with the list.
        grown_bytes: that it grew by at most, everything included.
        todo: shards of the part that are to do.
    """

    shards: int
    listing: float
    remembering: float
    selecting: float
    comparing: float
    listed_bytes: int
    grown_bytes: int
    todo: int


def lay_out(folder: Path, shards: int) -> None:
    """Give an archive so many shards, and every second one a result."""
    for kind, suffix, step in (("archive", ".tar", 1), ("results", ".tar.parquet", 2)):
        source = folder / kind
        for number in range(0, shards, step):
            name = folder / kind / f"site={number % 1000}/{number:07}{suffix}"
            name.parent.mkdir(parents=True, exist_ok=True)
            if number // step % _NAMES == 0:
                name.write_bytes(bytes(1024))
                source = name
            else:
                name.hardlink_to(source)


def plan(folder: Path) -> Planned:
    """List what `lay_out` has made, and plan the third of eight parts."""
    before, most, seconds = held_alone(Path("/proc/self")), _most_held(), dict[str, float]()

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = process_time()
        result = work()
        seconds[step] = process_time() - started
        return result

    inputs, output = [str(folder / "archive")], str(folder / "results")
    found = timed("listing", lambda: discover(inputs, output))
    listed = held_alone(Path("/proc/self")) - before
    timed("remembering", lambda: ledger.remember(output, _results(found.shards, output)))
    part = timed("selecting", lambda: select(found, part=Part(3, _PARTS), output=output))
    compared = timed("comparing", lambda: ledger.plan(part.shards, output, _MARK, replace=False))
    grown = _most_held() - most
    return Planned(len(found.shards), **seconds, listed_bytes=listed, grown_bytes=grown, todo=len(compared.todo))


def _results(shards: list[Shard], output: str) -> list[Result]:
    versions = {entry.url: entry.identity for entry in store.list_files(output)}
    return [
        Result(shard.output, versions[shard.output], shard.uri, shard.identity, _MARK.digest, 1000)
        for shard in shards
        if shard.output in versions
    ]


def _most_held() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    place = Path(sys.argv[1])
    lay_out(place, int(sys.argv[2]))
    print(json.dumps(asdict(plan(place))))
