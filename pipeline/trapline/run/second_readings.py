"""Read a shard again before anything bad is said of it: a verdict stands when two readings agree.

A network, a proxy or a store that flips one bit makes a sound picture a `failed` row and a sound archive a broken one,
and the next night would call that done. So what a first reading refuses is fetched again, over new connections and from
no cache. For remote stores only: a file of this machine comes from the page cache the second time, which proves
nothing. A shard that is really bad costs twice its reading, never more.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol, TypeVar

from trapline.errors import ShardBroken, TransientError
from trapline.sources.records import Record, read
from trapline.sources.shards import Shard
from trapline.storage import store

# Larger archives are not copied: a node decodes one on each core at a time.
_MAX_COPY_BYTES = 512 * 2**20
_COPIED_AT_ONCE = 2**20
_MD5 = re.compile(r"\d+-([0-9a-f]{32})")


class Decoded(Protocol):
    """An image that was decoded, or could not be."""

    @property
    def status(self) -> str:
        """ok, salvaged or failed."""

    @property
    def error(self) -> str | None:
        """Kind and message; None where it is ok."""


Image = TypeVar("Image", bound=Decoded)


@dataclass
class FirstReading:
    """What a first reading of a shard has found.

    Attributes:
        shard: which one.
        accepted: images without any trouble: identity by key, None in archives.
        doubtful: the others: what was read, and what was said of it, by key.
        broken: why it could not be read to its end; None where it could.
    """

    shard: Shard
    accepted: dict[str, str | None] = field(default_factory=dict)
    doubtful: dict[str, tuple[bytes | None, str | None]] = field(default_factory=dict)
    broken: str | None = None

    def accepts(self, record: Record, decoded: Decoded) -> bool:
        """Take note of an image; return whether it needs no second reading."""
        if decoded.status == "ok":
            self.accepted[record.key] = record.identity
            return True
        self.doubtful[record.key] = _said(record, decoded)
        return False

    @property
    def needs_second(self) -> bool:
        """Whether anything bad would be said of the shard."""
        return bool(self.doubtful or self.broken)


def is_worthwhile(shard: Shard) -> bool:
    """Return whether a second reading of a shard could differ from the first."""
    return store.remote(shard.uri) is not None


def read_again(first: FirstReading, known: Mapping[str, str], decode: Callable[[Record], Image]) -> Iterator[Image]:
    """Read a shard a second time, and give the images that the first reading did not accept.

    Args:
        first: what the first reading found; its `broken` is what holds in the end.
        known: identities of loose images that need not be fetched, by key.
        decode: what makes pixels of a record.

    Yields:
        Images that are ok now, and those that both readings refuse.

    Raises:
        TransientError: the readings disagree, and it is not known which of them is right; or as `read` raises.
    """
    shard, seen, broken = first.shard, set[str](), None
    known = {**known, **{key: identity for key, identity in first.accepted.items() if identity}}
    store.reconnect(shard.uri)
    with _copied(shard) as (copy, is_proven):
        try:
            for record in read(copy, Counter(), known):
                seen.add(record.key)
                if record.unchanged or record.key in first.accepted:
                    continue
                decoded = decode(record)
                if decoded.status != "ok" and not is_proven:
                    _compare(record, first.doubtful.get(record.key), _said(record, decoded), shard)
                yield decoded
        except ShardBroken as error:
            broken = str(error).replace(copy.uri, shard.uri)
    missing = (first.accepted.keys() | first.doubtful.keys()) - seen
    # A break that the second reading does not meet was none.
    if missing or (broken and broken != first.broken and not is_proven):
        raise _disagreement(shard, broken or f"{min(missing)!r} was there the first time")
    first.broken = broken


@contextmanager
def _copied(shard: Shard) -> Iterator[tuple[Shard, bool]]:
    """Copy an archive to this machine, where that can prove something.

    Where the store's etag is the MD5 of the content, the copy is known to be what was stored.

    Yields:
        What to read, and whether it is proven.
    """
    md5 = _MD5.fullmatch(shard.identity)
    if not md5 or shard.format == "folder" or shard.size > _MAX_COPY_BYTES:
        yield shard, False
        return
    digest = hashlib.md5(usedforsecurity=False)
    with NamedTemporaryFile(prefix="trapline-") as file:
        with store.open_unchanged(shard.uri, shard.identity) as stream:
            while data := stream.read(_COPIED_AT_ONCE):
                digest.update(data)
                file.write(data)
        file.flush()
        path = str(Path(file.name).resolve())
        # An etag of this form may be something else, with encryption for instance: then two readings must agree.
        yield replace(shard, uri=path, identity=store.stat(path).identity), digest.hexdigest() == md5[1]


def _said(record: Record, decoded: Decoded) -> tuple[bytes | None, str | None]:
    return record.sha256, decoded.error


def _compare(
    record: Record,
    before: tuple[bytes | None, str | None] | None,
    now: tuple[bytes | None, str | None],
    shard: Shard,
) -> None:
    """Raise TransientError unless two readings of an image gave the same bytes, or the same reason for none."""
    same = before is not None and (before[0] == now[0] if now[0] else before == now)
    if not same:
        raise _disagreement(shard, f"{record.key!r}: {now[1]}")


def _disagreement(shard: Shard, what: str) -> TransientError:
    return TransientError(f"{shard.uri}: two readings of it differ ({what}); the connection or the store damages data")
