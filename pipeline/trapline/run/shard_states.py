"""Which shards of a run are done, by whom, and which have failed; progress in bytes."""

from collections import Counter
from collections.abc import Iterable, Sequence

from trapline.results.footer import Footer
from trapline.run.messages import Failure
from trapline.sources.shards import Shard


class ShardStates:
    """The state of each shard of a run.

    Args:
        todo: the shards to classify.

    Attributes:
        committed: URIs of shards whose result this run has written.
        done_elsewhere: URIs of shards whose result another run has written meanwhile.
        failures: by URI, why a shard has no result; the last reason counts.
        broken: by URI, why a committed shard could not be read to its end.
        bytes_done: bytes read so far, and those of shards that were done without reading.
    """

    def __init__(self, todo: Sequence[Shard]) -> None:
        self.committed: set[str] = set()
        self.done_elsewhere: set[str] = set()
        self.failures: dict[str, Failure] = {}
        self.broken: dict[str, str] = {}
        self.bytes_done = 0
        self._count = len(todo)
        self._bytes_todo = sum(shard.size for shard in todo)
        self._bytes_of: Counter[str] = Counter()

    def has_result(self, uri: str) -> bool:
        """Return whether a shard of this run is done."""
        return uri in self.committed or uri in self.done_elsewhere

    @property
    def settled(self) -> int:
        """Number of shards that have got a result since this run began."""
        return len(self.committed) + len(self.done_elsewhere)

    @property
    def unfinished(self) -> int:
        """Number of shards that have neither a result nor failed."""
        return self._count - self.settled - len(self.failures)

    @property
    def fraction_done(self) -> float:
        """Share of the bytes to classify."""
        return self.bytes_done / self._bytes_todo if self._bytes_todo else 1.0

    def commit(self, footer: Footer) -> None:
        """Record that a shard's result was written."""
        self.committed.add(footer.uri)
        if footer.broken:
            self.broken[footer.uri] = footer.broken
        self._settle(footer)

    def done_by_another(self, footer: Footer) -> None:
        """Record that another run has written a shard's result."""
        self.done_elsewhere.add(footer.uri)
        self._settle(footer)

    def fail(self, failure: Failure) -> None:
        """Record that a shard could not be read or written in this pass; a shard with a result stays done."""
        if not self.has_result(failure.shard.uri):
            self.failures[failure.shard.uri] = failure

    def retry(self, shards: Iterable[Shard]) -> None:
        """Record that shards which failed are read again."""
        for shard in shards:
            self.failures.pop(shard.uri, None)

    def advance(self, uri: str, size: int, by: int) -> None:
        """Record bytes that were read of a shard."""
        # Bytes that are read again, or beyond the size that was listed, are no progress.
        before = self._bytes_of[uri]
        self._bytes_of[uri] = min(size, before + by)
        self.bytes_done += self._bytes_of[uri] - before

    def _settle(self, footer: Footer) -> None:
        self.failures.pop(footer.uri, None)
        self.advance(footer.uri, footer.size, footer.size)
