"""Chunks become result files: assemble shards, and commit them while the next ones are predicted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Barrier
from types import TracebackType
from typing import Self

from trapline.errors import StorageError, TransientError, TraplineError
from trapline.results import clip_pooling, parquet, rows
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.schema import Columns
from trapline.run.messages import EndOfShard, Failure, PredictedChunk
from trapline.run.progress import Progress
from trapline.sources.shards import Shard

# A single file may be refused for its name. This many in a row mean a full disk or a lost permission.
_REFUSALS = 3
# Threads that write files; they wait for the store, not for a core.
_THREADS = 4


class Assembler:
    """Put the chunks of shards together, in whatever order they come and however often."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, PredictedChunk]] = {}
        self._settled: set[str] = set()

    def add(self, chunk: PredictedChunk) -> list[PredictedChunk] | None:
        """Add a chunk; return all chunks of its shard, in order, once they are complete, and once only."""
        if chunk.shard.uri in self._settled:
            return None
        parts = self._parts.setdefault(chunk.shard.uri, {})
        parts[chunk.index] = chunk
        end = next((index for index, part in parts.items() if part.end), None)
        if end is None or len(parts) <= end:
            return None
        self.drop(chunk.shard)
        return [parts[index] for index in range(end + 1)]

    @property
    def under_way(self) -> int:
        """Return the number of shards of which some chunks have come, but not all."""
        return len(self._parts)

    def drop(self, shard: Shard) -> None:
        """Forget a shard, and ignore chunks of it that come later."""
        self._settled.add(shard.uri)
        self._parts.pop(shard.uri, None)


class Writer:
    """Commit shards in other threads; leaving the context always waits for their files and records them.

    Args:
        columns: the schema.
        progress: records each file that was written, and each that was refused.
    """

    def __init__(self, columns: Columns, progress: Progress) -> None:
        self._columns = columns
        self._progress = progress
        self._threads = ThreadPoolExecutor(_THREADS)
        # All are started here: one that Ctrl-C interrupts while it is started would not be waited for.
        started = Barrier(_THREADS + 1)
        for _ in range(_THREADS):
            self._threads.submit(started.wait)
        started.wait()
        # Not `concurrent.futures.wait`: Ctrl-C in it can leave a future locked, and its thread waiting forever.
        self._written: SimpleQueue[tuple[Shard, Footer | BaseException]] = SimpleQueue()
        self._under_way = 0
        self._refusals = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not by counting: Ctrl-C between two steps of `write` or `settle` leaves a count that is never reached.
        try:
            with self._threads:  # waits again if Ctrl-C ends the first wait
                self._threads.shutdown()
        finally:
            refusals = []
            while not self._written.empty():
                try:
                    self._take_in(*self._written.get())
                except Exception as refusal:  # noqa: BLE001 - the files behind it are recorded first
                    refusals.append(refusal)
            if refusals and error is None:
                raise refusals[0]

    def write(self, chunks: list[PredictedChunk]) -> None:
        """Start to write a shard's file."""
        self._under_way += 1
        self._threads.submit(self._commit, chunks)

    def settle(self, at_most: int = 2 * _THREADS) -> None:
        """Record the files that were written; wait until no more than `at_most` are under way.

        Raises:
            StorageError: the store refused several files in a row.
        """
        while self._under_way > at_most or not self._written.empty():
            shard, outcome = self._written.get()
            self._under_way -= 1
            self._take_in(shard, outcome)

    def _commit(self, chunks: list[PredictedChunk]) -> None:
        try:
            outcome: Footer | BaseException = commit(chunks, self._columns, self._progress.plan.fingerprint)
        except BaseException as error:  # noqa: BLE001 - the main thread handles it
            outcome = error
        self._written.put((chunks[0].shard, outcome))

    def _take_in(self, shard: Shard, outcome: Footer | BaseException) -> None:
        if isinstance(outcome, Footer):
            self._progress.commit(outcome)
            self._refusals = 0
        elif isinstance(outcome, TraplineError):
            self._progress.fail(Failure(shard, str(outcome), isinstance(outcome, TransientError)))
            self._refusals += isinstance(outcome, StorageError)
            if self._refusals == _REFUSALS:
                raise outcome
        else:
            raise outcome


def commit(chunks: Sequence[PredictedChunk], columns: Columns, fingerprint: Fingerprint) -> Footer:
    """Write the Parquet file of a shard.

    Args:
        chunks: all of the shard's, in order, with predictions.
        columns: the schema.
        fingerprint: of this run.

    Raises:
        StorageError: the store refuses the file.
        TransientError: the store did not answer, after retries.
    """
    shard, end = chunks[0].shard, chunks[-1].end or EndOfShard()
    clips = clip_pooling.total([chunk.clips for chunk in chunks])
    table = rows.table([clip_pooling.fill_clips(chunk.rows, clips, columns) for chunk in chunks], columns)
    images = rows.of_images(table)
    frames = rows.of_frames(table)
    statuses = Counter(images.column("status").to_pylist())
    footer = Footer(
        uri=shard.uri,
        identity=shard.identity,
        fingerprint=fingerprint,
        images={status: statuses[status] for status in ("ok", "salvaged", "failed")},
        reasons=_counts(error.partition(":")[0] for error in images.column("error").to_pylist() if error),
        species=_counts(rows.without_frames(table).column("species").drop_null().to_pylist())
        if columns.classes
        else {},
        ignored=end.ignored,
        broken=end.broken,
        size=shard.size,
        crops=len(table) - len(images) - len(frames),
        clips=images.column("media_type").to_pylist().count("video"),
        frames=len(frames),
        unmatched=len(end.unmatched),
    )
    parquet.write(shard.output, table, footer, columns.classes)
    return footer


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
