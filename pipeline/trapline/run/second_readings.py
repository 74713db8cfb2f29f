"""Read remote images and shards that seem damaged a second time: damage is recorded only if two readings agree.

If a network, a proxy or a store flips one bit, a sound picture becomes a `failed` row and a sound archive a broken one,
and the next night would take that for done. So whatever a first reading finds damaged is fetched again, over new
connections and without caches. Only from remote stores: a local file would come from the page cache the second time,
which proves nothing. At worst a shard is read twice.
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

# Larger archives are not copied: a node decodes one archive on each core at the same time.
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
        """Kind and message; None if it is ok."""


Image = TypeVar("Image", bound=Decoded)


@dataclass
class FirstReading:
    """What the first reading of a shard found.

    Attributes:
        shard: the shard.
        accepted: sound images: key -> identity (None in archives).
        doubtful: the other images: key -> hash of the bytes, and the error.
        broken: why the shard could not be read to its end; None if it could.
    """

    shard: Shard
    accepted: dict[str, str | None] = field(default_factory=dict)
    doubtful: dict[str, tuple[bytes | None, str | None]] = field(default_factory=dict)
    broken: str | None = None

    def accepts(self, record: Record, decoded: Decoded) -> bool:
        """Record an image; return whether it needs no second reading."""
        if decoded.status == "ok":
            self.accepted[record.key] = record.identity
            return True
        self.doubtful[record.key] = _said(record, decoded)
        return False

    @property
    def needs_second(self) -> bool:
        """Whether anything seems damaged."""
        return bool(self.doubtful or self.broken)


def is_worthwhile(shard: Shard) -> bool:
    """Return whether a second reading of a shard could differ from the first."""
    return store.remote(shard.uri) is not None


def read_again(first: FirstReading, known: Mapping[str, str], decode: Callable[[Record], Image]) -> Iterator[Image]:
    """Read a shard a second time, and yield the images that the first reading did not accept.

    Args:
        first: what the first reading found; its `broken` is set to the final verdict.
        known: identities of loose images that need not be fetched, by key.
        decode: turns a record into pixels.

    Yields:
        Images that are ok now, and images that both readings found damaged.

    Raises:
        TransientError: the readings disagree, and it is unknown which of them is right; or as `read` raises.
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
    # If the second reading finds no break, there was none.
    if missing or (broken and broken != first.broken and not is_proven):
        raise _disagreement(shard, broken or f"{min(missing)!r} was there the first time")
    first.broken = broken


@contextmanager
def _copied(shard: Shard) -> Iterator[tuple[Shard, bool]]:
    """Copy an archive to this machine if its etag can prove the copy.

    If the etag is the MD5 of the copy, the copy is known to be what was stored.

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
        # An etag of this form may not be an MD5, with encryption for instance: then two readings must agree.
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
