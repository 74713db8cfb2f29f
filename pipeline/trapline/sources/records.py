"""Turn shards into records, one per image or clip, streamed: memory is bounded by a few images, never by the shard.

A clip is copied to a temporary file, but for one that is a file of this machine already, and for a cell of Parquet,
which is one value in memory.

What is wrong with one image is a record with an `error`; what is wrong with the shard's own framing (a tar that breaks
off) raises `ShardBroken` after the records that came before the break. Kinds of image error raised here: `too_large`,
`encrypted`, `unreadable`, `unavailable`, `nested_archive`, `null`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO

from trapline.errors import ImageError, ShardBroken, StorageError, TransientError, TraplineError, in_one_line
from trapline.sources import limits, signatures
from trapline.sources.archives import wanted
from trapline.sources.file_types import count_ignored, is_clip, is_sidecar, sample_stem
from trapline.sources.limits import Quota
from trapline.sources.loose_images import UNAVAILABLE, Fetcher, Loose, batches, lost_links
from trapline.sources.members import Member
from trapline.sources.parquet_images import ImageTable
from trapline.sources.shards import Shard, folder_identity, folder_members, list_loose
from trapline.sources.sidecars import UNREADABLE, SidecarIndex, json_text, webdataset_key
from trapline.sources.spooled import SpooledFile
from trapline.sources.tar_archive import tar_members
from trapline.sources.zip_archive import read_directory
from trapline.storage import store
from trapline.storage.store import Entry

# An image, its sidecar and a few renditions; bounds memory where thousands of members bear one name.
_MAX_SAMPLE = 16
# Images that are held at the same time, if more than one.
_HELD_BYTES = 64 * 2**20

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Record:
    """One image or clip of a shard, still encoded.

    Attributes:
        key: path inside the shard, never empty; a name that repeats gets its ordinal (`a.jpg`, `a.jpg@2`).
        data: the file's bytes; None for a clip, and where `error` says why there are none.
        metadata: the `.json` sidecar as valid JSON; None without one.
        error: why the bytes could not be had.
        identity: of a loose image: size and etag of its file and of its sidecar's.
        unchanged: whether it was known in this identity, and so was not fetched; there is no data then.
        clip: the file, of what is named like a clip.
    """

    key: str
    data: bytes | None
    metadata: str | None = None
    error: ImageError | None = None
    identity: str | None = None
    unchanged: bool = False
    clip: SpooledFile | None = None

    @property
    def size(self) -> int:
        """Number of bytes at hand."""
        return self.clip.size if self.clip else len(self.data or b"")

    @property
    def sha256(self) -> bytes | None:
        """Hash of the bytes at hand; None where there are none."""
        if self.clip:
            return self.clip.sha256
        return None if self.data is None else hashlib.sha256(self.data).digest()

    def without_data(self) -> "Record":
        """Return the record without its bytes, which have done their work."""
        return replace(self, data=None, clip=None)


def read(shard: Shard, ignored: Counter[str], known: Mapping[str, str] = _NOTHING) -> Iterator[Record]:
    """Read the records of a shard, in the shard's own order.

    Args:
        shard: what to read; it must still be what it was when it was listed.
        ignored: counts what gives no row, by suffix.
        known: identities of loose images by key; those that still have theirs are not fetched.

    Raises:
        ShardBroken: the shard's framing breaks off here, it does not hold what its own count says, or it is over the
            limits of a shard.
        TransientError: the shard changed since it was listed, or the store did not answer.
        StorageError: the store refuses us.
    """
    quota = Quota(shard.uri, shard.size)
    if shard.format == "folder":
        records = _read_folder(shard, ignored, known)
    else:
        records = {"tar": _read_tar, "zip": _read_zip, "parquet": _read_parquet}[shard.format](shard, ignored, quota)
    seen: Counter[str] = Counter()
    for record in records:
        key = unique_key(record.key, seen)
        if shard.format != "folder":  # of which each image takes a place in the listing
            quota.take_key(key)
        if record.metadata and not quota.take_metadata(record.metadata):
            count_ignored(ignored, "(sidecar beyond the limit of its shard)")
            record = replace(record, metadata=None)
        yield replace(record, key=key)


def unique_key(name: str, seen: Counter[str]) -> str:
    """Return the key of an image that is stored under this name, after those of its shard that were `seen` before."""
    key = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    while True:
        seen[key] += 1
        if seen[key] == 1:
            return key
        key = f"{key}@{seen[key]}"  # which may be the name of another from the start


def _read_tar(shard: Shard, ignored: Counter[str], quota: Quota) -> Iterator[Record]:
    """Read a tar as WebDataset packs it: an image and its sidecar are neighbours, in either order."""
    with store.open_unchanged(shard.uri, shard.identity) as stream:
        neighbours = _Neighbours(ignored)
        try:
            with _breaking(shard, stream, "the tar breaks off", "what came before is kept"):
                for member in wanted(tar_members(stream), ignored, shard.clips):
                    yield from neighbours.add(_record(member, quota))
        except ShardBroken:
            yield from neighbours.flush()
            raise
        yield from neighbours.flush()


class _Neighbours:
    """The members of a tar that may be of one sample; held until it is complete."""

    def __init__(self, ignored: Counter[str]) -> None:
        self._ignored = ignored
        self._held: list[Record] = []

    def add(self, member: Record) -> Iterator[Record]:
        """Take in an image or a sidecar; give the images that wait for nothing more."""
        if self._held and webdataset_key(self._held[0].key) != webdataset_key(member.key):
            yield from self.flush()
        elif len(self._held) == _MAX_SAMPLE or sum(other.size for other in self._held) > _HELD_BYTES:
            stem = sample_stem(member.key)
            waiting = [other for other in self._held if sample_stem(other.key) == stem]
            yield from self.flush(waiting if len(waiting) < len(self._held) else [])
        self._held.append(member)

    def flush(self, waiting: list[Record] | None = None) -> Iterator[Record]:
        """Give the images with their metadata, but for those that are `waiting`."""
        held = [member for member in self._held if not any(member is other for other in waiting or [])]
        self._held = list(waiting or [])
        sidecars = SidecarIndex[bytes | None](convention=True)
        for member in held:
            if is_sidecar(member.key):
                sidecars.add(member.key, _sidecar(member, self._ignored))
        for member in held:
            if not is_sidecar(member.key):
                yield replace(member, metadata=_text(sidecars.find(member.key), self._ignored))
        sidecars.count_unmatched(self._ignored)


def _read_zip(shard: Shard, ignored: Counter[str], quota: Quota) -> Iterator[Record]:
    with store.open_unchanged(shard.uri, shard.identity) as stream:
        with _breaking(shard, stream, "no readable zip directory", "upload it again"):
            directory = read_directory(stream)
        members = list(wanted(directory.members, ignored, shard.clips))
        sidecars = SidecarIndex[Member]()
        for member in members:
            if is_sidecar(member.name):
                sidecars.add(member.name, member)
        for member in members:
            if not is_sidecar(member.name):
                sidecar = sidecars.find(member.name)
                metadata = _text(_sidecar(_record(sidecar, quota), ignored), ignored) if sidecar else None
                yield replace(_record(member, quota), metadata=metadata)
        sidecars.count_unmatched(ignored)
        if directory.problem:
            raise ShardBroken(f"{shard.uri}: {directory.problem}; what it names is kept, pack the rest again")


def _record(member: Member, quota: Quota) -> Record:
    is_a_clip = is_clip(member.name)
    error = quota.take_data(member.size, limits.MAX_CLIP_BYTES if is_a_clip else limits.MAX_IMAGE_BYTES)
    if error:
        return Record(member.name, None, error=error)
    try:
        if is_a_clip:
            return Record(member.name, None, clip=SpooledFile.copied(member.copy))
        return Record(member.name, member.read())
    except ImageError as error:
        return Record(member.name, None, error=error)


def _read_parquet(shard: Shard, ignored: Counter[str], quota: Quota) -> Iterator[Record]:
    with (
        store.open_unchanged(shard.uri, shard.identity) as stream,
        _breaking(shard, stream, "not readable as Parquet", "write it again"),
    ):
        table = ImageTable(stream, shard.uri, shard.image_column)
        for other in table.alternatives:
            count_ignored(ignored, f"(column {other!a}; {table.image_column!a} was taken)", table.rows_in_all)
        for group in range(table.groups):
            for name in table.oversized(group):
                count_ignored(ignored, f"(column {name!a}, too large)")
            for row in table.rows(group):
                metadata = row.metadata
                if metadata and len(metadata) > limits.MAX_SIDECAR_BYTES:
                    count_ignored(ignored, limits.SIDECAR_TOO_LARGE)
                    metadata = None
                if row.data is None:
                    error: ImageError | None = ImageError("null", "the image cell is null")
                else:
                    error = quota.take_data(len(row.data))
                yield Record(row.name, None if error else row.data, metadata, error)
        table.refuse_wrong_count()


def _read_folder(shard: Shard, ignored: Counter[str], known: Mapping[str, str]) -> Iterator[Record]:
    images, sidecars = _list_folder(shard, ignored)
    loose = [Loose(entry, sidecars.find(entry.url)) for entry in images]
    if not shard.clips:
        for each in loose:
            if is_clip(each.key):
                count_ignored(ignored, PurePosixPath(each.key).suffix.lower())
        loose = [each for each in loose if not is_clip(each.key)]
    sidecars.count_unmatched(ignored)
    lost = lost_links(loose)
    fetcher = Fetcher(loose, lost)
    try:
        for batch in batches([image for image in loose if known.get(image.key) != image.identity]):
            yield from _fetch(batch, fetcher, lost, ignored)
        for image in loose:
            if known.get(image.key) == image.identity:
                yield Record(image.key, None, identity=image.identity, unchanged=True)
    except StorageError:
        _list_folder(shard, Counter())  # a file that has gone is a folder that has changed
        raise
    _list_folder(shard, Counter())


def _list_folder(shard: Shard, ignored: Counter[str]) -> tuple[list[Entry], SidecarIndex[Entry]]:
    images, sidecars = folder_members(list_loose(shard.uri), ignored)
    if folder_identity(images, sidecars) != shard.identity:
        raise TransientError(f"{shard.uri}: images or sidecars came, went or changed since it was listed; try again")
    return images, sidecars


def _fetch(batch: list[Loose], fetcher: Fetcher, lost: set[Entry], ignored: Counter[str]) -> Iterator[Record]:
    fetched = fetcher.fetch(batch)
    for each in batch:
        sidecar = fetched.get(each.sidecar) if each.sidecar else None
        if each.sidecar and not isinstance(sidecar, bytes):
            is_unreadable = sidecar is not None or each.sidecar in lost
            count_ignored(ignored, UNREADABLE if is_unreadable else limits.SIDECAR_TOO_LARGE)
        metadata = _text(sidecar, ignored) if isinstance(sidecar, bytes) else None
        error = limits.image_error(each.image.size, limits.MAX_CLIP_BYTES if is_clip(each.key) else None)
        if each.image in lost:
            error = ImageError("unreadable", "a symbolic link without a target; bring back the target, or remove it")
        found = fetcher.clip(each) if is_clip(each.key) and not error else fetched.get(each.image)
        if isinstance(found, TraplineError):
            error = ImageError(UNAVAILABLE, str(found).removeprefix(f"{each.image.url}: "))
        data = found if isinstance(found, bytes) else None
        clip = found if isinstance(found, SpooledFile) else None
        yield Record(each.key, data, metadata, error, each.identity, clip=clip)


def _sidecar(record: Record, ignored: Counter[str]) -> bytes | None:
    """Return a sidecar's bytes; None, counted, where they could not be had."""
    if record.error:
        count_ignored(ignored, UNREADABLE)
    return record.data


def _text(sidecar: bytes | None, ignored: Counter[str]) -> str | None:
    return None if sidecar is None else json_text(sidecar, ignored)


@contextmanager
def _breaking(shard: Shard, stream: IO[bytes], what: str, remedy: str) -> Iterator[None]:
    """Turn what a format's reader raises into the break of its shard.

    In hostile bytes these readers raise whatever they come upon, IndexErrors and MemoryErrors included; what the store
    raises comes as our own (`storage.StoreFile`).
    """
    try:
        yield
    except TraplineError:
        raise
    except Exception as error:
        content = signatures.describe(_head(stream))
        if content and content not in signatures.OF_FORMAT[shard.format]:
            raise ShardBroken(f"{shard.uri}: is {content}, not {shard.format}; upload it again or rename it") from error
        raise ShardBroken(f"{shard.uri}: {what}: {in_one_line(error)}; {remedy}") from error


def _head(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(signatures.HEAD_BYTES)
