"""Measure what a second night costs before its first image: listing the archive, and finding out what is done."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from rich.console import Console

from trapline.decoding.decode import Facts
from trapline.results import ledger
from trapline.results.fingerprint import Fingerprint
from trapline.results.rows import image_rows, with_predictions
from trapline.results.schema import Columns
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.run.writer import commit
from trapline.sources.records import Record
from trapline.sources.shards import Shard, discover
from trapline.storage import store

# Classes of the reference model: their names are most of a footer.
_COLUMNS = Columns(tuple(f"Species number {n}" for n in range(707)), 768, {}, 5, True, "float32")
_MARK = Fingerprint({"weights_sha256": "ab" * 32, "classes_sha256": "cd" * 32, "size": [384, 384], "precision": "bf16"})
_WRITERS = 32
_EMPTY_TAR = bytes(10240)


@dataclass(frozen=True)
class Row:
    """One step.

    Attributes:
        step: what was done.
        seconds: it took.
        shards: it was done for.
    """

    step: str
    seconds: float
    shards: int

    @property
    def milliseconds_a_shard(self) -> float:
        """Return the average."""
        return 1000 * self.seconds / self.shards


def measure(console: Console, place: str, shards: int) -> list[Row]:
    """Make an archive of empty tars with a result for each, and plan a second night over it.

    Args:
        console: shows what is going on.
        place: an empty folder on the store to be measured; it stays as it is then.
        shards: how many.

    Raises:
        FatalError: the store refuses.
    """
    inputs, output = store.join(place, "archive"), store.join(place, "results")
    rows = []

    def timed(step: str, work: Callable[[], object]) -> object:
        with console.status(step):
            started = perf_counter()
            result = work()
        rows.append(Row(step, perf_counter() - started, shards))
        return result

    names = [f"site={number % 100}/{number:06}.tar" for number in range(shards)]
    timed("put the tars", lambda: _in_parallel(lambda name: store.put(store.join(inputs, name), _EMPTY_TAR), names))
    found: list[Shard] = timed("list the input", lambda: discover([inputs], output).shards)  # type: ignore[assignment]
    timed("commit the results", lambda: _in_parallel(_commit, found))
    plan = timed("plan, reading each footer", lambda: ledger.plan(found, output, _MARK, replace=False))
    assert isinstance(plan, ledger.Plan)
    timed("write the cache of footers", lambda: ledger.remember(output, plan.results))
    again = timed("plan, from the cache", lambda: ledger.plan(found, output, _MARK, replace=False))
    assert isinstance(again, ledger.Plan)
    if (len(plan.done), len(again.done)) != (shards, shards):
        raise AssertionError(f"{len(plan.done)} and {len(again.done)} of {shards} shards were seen to be done")
    return rows


def _commit(shard: Shard) -> None:
    rows = image_rows(shard.uri, [Record("a.jpg", None)], [Facts("failed", "empty: the file has no bytes")])
    commit([PredictedChunk(shard, 0, with_predictions(rows, None, _COLUMNS), 0, {}, end=EndOfShard())], _COLUMNS, _MARK)


def _in_parallel(work: Callable[..., None], items: list[str] | list[Shard]) -> None:
    with ThreadPoolExecutor(_WRITERS) as threads:
        for _ in threads.map(work, items):
            pass
