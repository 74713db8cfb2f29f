"""Find some images and clips of a shard again by their keys, without reading all of it."""

from collections import Counter
from collections.abc import Collection, Iterator

from trapline.errors import ImageError, ShardBroken, StorageError, TraplineError, in_one_line
from trapline.sources import limits
from trapline.sources.archives import image_members
from trapline.sources.file_types import is_clip, is_media, shard_format
from trapline.sources.members import Member
from trapline.sources.parquet_images import ImageTable
from trapline.sources.records import unique_key
from trapline.sources.shards import list_loose
from trapline.sources.spooled import SpooledFile
from trapline.storage import store
from trapline.storage.store import Entry

Found = tuple[str, bytes | SpooledFile]


def read_media(uri: str, keys: Collection[str], image_column: str | None = None) -> Iterator[Found]:
    """Yield images and clips of a shard by the keys of their rows: each as it is now, in the order of the shard.

    A file with a clip's suffix comes as a SpooledFile. A tar is read up to the last key, of zips and folders only the
    files themselves are read, and of Parquet the row groups that have a key. Keys that the shard does not hold, and
    files that cannot be read, are left out.

    Raises:
        ShardBroken: the shard breaks off before the last of them.
        NoRoom: a clip cannot be copied to this machine.
        TransientError: the shard changes as it is read, or the store does not answer.
        StorageError: it is gone, or the store refuses us.
    """
    left = set(keys)
    try:
        for key, data in _read(uri, left, image_column):
            yield key, data
            left.discard(key)
            if not left:
                return
    except TraplineError:
        raise
    except Exception as error:  # the parsers of archives raise anything on damaged bytes
        raise ShardBroken(f"{uri}: cannot be read: {in_one_line(error)}") from error


def _read(uri: str, keys: Collection[str], image_column: str | None) -> Iterator[Found]:
    kind = shard_format(uri)
    entries = list_loose(uri)
    if kind is None or all(entry.url != uri for entry in entries):  # a folder may be called like an archive
        yield from _loose(entries, keys)
    elif kind == "parquet":
        with store.open_tail(uri) as stream:
            yield from _rows(ImageTable(stream, uri, image_column), keys)
    else:
        seen: Counter[str] = Counter()
        with store.open_unchanged(uri, store.stat(uri).identity) as stream:
            for member in image_members(stream, kind):
                key = unique_key(member.name, seen)
                if key in keys and not limits.image_error(member.size, _most(member.name)):
                    try:
                        yield key, _contents(member)
                    except ImageError:
                        continue


def _most(name: str) -> int:
    return limits.MAX_CLIP_BYTES if is_clip(name) else limits.MAX_IMAGE_BYTES


def _contents(member: Member) -> bytes | SpooledFile:
    return SpooledFile.copied(member.copy) if is_clip(member.name) else member.read()


def _loose(entries: list[Entry], keys: Collection[str]) -> Iterator[Found]:
    seen: Counter[str] = Counter()
    for entry in entries:
        name = entry.url.rpartition("/")[2]
        if not is_media(name):
            continue
        key = unique_key(name, seen)
        if key in keys and not limits.image_error(entry.size, _most(name)):
            try:
                yield key, SpooledFile.loose(entry) if is_clip(name) else store.read_many([entry])[0]
            except StorageError:
                continue  # deleted since


def _rows(table: ImageTable, keys: Collection[str]) -> Iterator[Found]:
    """Read the names of all row groups, and the images of those that have a key, up to the last key."""
    seen: Counter[str] = Counter()
    for group in range(table.groups):
        named = [unique_key(name, seen) for name in table.names(group)]
        last = max((place for place, key in enumerate(named) if key in keys), default=-1)
        for key, row in zip(named[: last + 1], table.rows(group), strict=False):
            if key in keys and row.data:
                yield key, row.data
