"""Turn shards into records, one per image or clip, streamed: memory is bounded by a few images, never by the shard.

A clip is copied to a temporary file, unless it is a local file already, or a cell of Parquet, which is one value in
memory.

A fault of one image is a record with an `error`; a fault of the shard's own framing (a tar that breaks off) raises
`ShardBroken` after the records before the break. Kinds of image error raised here: `too_large`, `encrypted`,
`unreadable`, `unavailable`, `nested_archive`, `null`.
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
from trapline.sources.sidecars import UNAVAILABLE_SIDECAR, UNREADABLE, SidecarIndex, json_text, webdataset_key
from trapline.sources.spooled import SpooledFile
from trapline.sources.tar_archive import tar_members
from trapline.sources.zip_archive import read_directory
from trapline.storage import store
from trapline.storage.store import Entry

# An image, its sidecar and a few renditions; bounds memory if thousands of members have one name.
_MAX_SAMPLE = 16
# Images that are held at the same time, if more than one.
_HELD_BYTES = 64 * 2**20

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Record:
    """One image or clip of a shard, still encoded.

    Attributes:
        key: path inside the shard, never empty; a name that repeats gets its ordinal (`a.jpg`, `a.jpg@2`).
        data: the file's bytes; None for a clip, and if there is an `error`.
        metadata: the `.json` sidecar as valid JSON; None if there is none.
        error: why the bytes could not be read.
        identity: of a loose image: size and etag of its file and of its sidecar's; `known` never holds it if the
            sidecar is unavailable.
        unchanged: whether `known` had this identity, so that the image was not fetched; there is no data then.
        clip: the file, if the name is a clip's.
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
        """Hash of the bytes at hand; None if there are none."""
        if self.clip:
            return self.clip.sha256
        return None if self.data is None else hashlib.sha256(self.data).digest()

    def without_data(self) -> "Record":
        """Return the record without its bytes, which are no longer needed once they are decoded."""
        return replace(self, data=None, clip=None)


def read(shard: Shard, ignored: Counter[str], known: Mapping[str, str] = _NOTHING) -> Iterator[Record]:
    """Read the records of a shard, in the shard's own order.

    Args:
        shard: what to read; it must not have changed since it was listed.
        ignored: counts the files that become no row, by suffix.
        known: identities of loose images by key; images that still have the same identity are not fetched.

    Raises:
        ShardBroken: the shard's framing breaks off here, its number of files is not the one that it states, or it
            exceeds the limits of a shard.
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
        if shard.format != "folder":  # a folder's images were listed, and are in memory already
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
        key = f"{key}@{seen[key]}"  # another image may have this name already: check again


def _read_tar(shard: Shard, ignored: Counter[str], quota: Quota) -> Iterator[Record]:
    """Read a tar as WebDataset packs it, with an image and its sidecar next to each other, in either order."""
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
    """Consecutive members of a tar that may belong to one sample; held until the sample is complete."""

    def __init__(self, ignored: Counter[str]) -> None:
        self._ignored = ignored
        self._held: list[Record] = []

    def add(self, member: Record) -> Iterator[Record]:
        """Add an image or a sidecar; yield the images whose samples are complete."""
        if self._held and webdataset_key(self._held[0].key) != webdataset_key(member.key):
            yield from self.flush()
        elif len(self._held) == _MAX_SAMPLE or sum(other.size for other in self._held) > _HELD_BYTES:
            stem = sample_stem(member.key)
            waiting = [other for other in self._held if sample_stem(other.key) == stem]
            yield from self.flush(waiting if len(waiting) < len(self._held) else [])
        self._held.append(member)

    def flush(self, waiting: list[Record] | None = None) -> Iterator[Record]:
        """Yield the images with their metadata, except those that are `waiting`."""
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
        _list_folder(shard, Counter())  # if a file is gone, the folder has changed, which is transient
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
        identity = each.identity
        if isinstance(sidecar, TraplineError):
            count_ignored(ignored, UNAVAILABLE_SIDECAR)
            identity = f"{each.image.identity} {UNAVAILABLE}"  # that of no image: the next run fetches both again
        elif each.sidecar and sidecar is None:
            count_ignored(ignored, UNREADABLE if each.sidecar in lost else limits.SIDECAR_TOO_LARGE)
        metadata = _text(sidecar, ignored) if isinstance(sidecar, bytes) else None
        error = limits.image_error(each.image.size, limits.MAX_CLIP_BYTES if is_clip(each.key) else None)
        if each.image in lost:
            error = ImageError("unreadable", "a symbolic link without a target; bring back the target, or remove it")
        found = fetcher.clip(each) if is_clip(each.key) and not error else fetched.get(each.image)
        if isinstance(found, TraplineError):
            error = ImageError(UNAVAILABLE, str(found).removeprefix(f"{each.image.url}: "))
        data = found if isinstance(found, bytes) else None
        clip = found if isinstance(found, SpooledFile) else None
        yield Record(each.key, data, metadata, error, identity, clip=clip)


def _sidecar(record: Record, ignored: Counter[str]) -> bytes | None:
    """Return a sidecar's bytes; None if they could not be read, which is counted."""
    if record.error:
        count_ignored(ignored, UNREADABLE)
    return record.data


def _text(sidecar: bytes | None, ignored: Counter[str]) -> str | None:
    return None if sidecar is None else json_text(sidecar, ignored)


@contextmanager
def _breaking(shard: Shard, stream: IO[bytes], what: str, remedy: str) -> Iterator[None]:
    """Raise ShardBroken for any error of a format's reader.

    On damaged bytes the readers raise anything, including IndexError and MemoryError. Errors of the store are
    TraplineErrors already (`storage.StoreFile`), and pass through.
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
