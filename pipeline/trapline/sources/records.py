"""Shards become records: one per image, streamed, so that memory is bounded by a few images and never by the shard.

What is wrong with one image is a record with an `error`; what is wrong with the shard's own framing (a tar that breaks
off) raises `ShardBroken` after the records that came before the break. Kinds of image error raised here: `too_large`,
`encrypted`, `unreadable`, `null`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from trapline.errors import ImageError, ShardBroken, StorageError, TransientError, TraplineError, in_one_line
from trapline.sources import archives
from trapline.sources.archives import Member
from trapline.sources.parquet_images import PictureTable
from trapline.sources.shards import Shard, folder_identity, folder_members, is_image, is_wanted, sample_stem
from trapline.storage import store
from trapline.storage.store import Entry

# A 100-megapixel JPEG is about 50 MB, the largest TIFFs of survey cameras 200 MB: more than this is no photograph.
MAX_IMAGE_BYTES = 256 * 2**20
# Sidecars with the output of detection models reach some 100 KB.
MAX_SIDECAR_BYTES = 2**20

# An image, its sidecar and a few renditions; bounds memory where thousands of members bear one name.
_MAX_SAMPLE = 16

# Loose images that are fetched at the same time: hides the store's latency.
_FOLDER_FETCH = 16
# Images that are held at the same time, if more than one.
_HELD_BYTES = 64 * 2**20

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Record:
    """One image of a shard, still encoded.

    Attributes:
        key: path inside the shard; a name that repeats gets its ordinal (`a.jpg`, `a.jpg@2`).
        data: the file's bytes; None where `error` says why there are none.
        metadata: the `.json` sidecar, verbatim; None without one.
        error: why the bytes could not be had.
        identity: of a loose image: size and etag of its file and of its sidecar's.
        unchanged: whether it was known in this identity, and so was not fetched; there is no data then.
    """

    key: str
    data: bytes | None
    metadata: str | None = None
    error: ImageError | None = None
    identity: str | None = None
    unchanged: bool = False


def read(shard: Shard, ignored: Counter[str], known: Mapping[str, str] = _NOTHING) -> Iterator[Record]:
    """The records of a shard, in the shard's own order.

    Args:
        shard: what to read; it must still be what it was when it was listed.
        ignored: counts what is no image and no sidecar, by suffix.
        known: identities of loose images by key; those that still have theirs are not fetched.

    Raises:
        ShardBroken: the shard's framing breaks off here.
        TransientError: the shard changed since it was listed, or the store did not answer.
        StorageError: the store refuses us.
    """
    readers = {"tar": _read_tar, "zip": _read_zip, "parquet": _read_parquet}
    seen: Counter[str] = Counter()
    reader = readers.get(shard.format)
    for record in reader(shard, ignored) if reader else _read_folder(shard, ignored, known):
        yield replace(record, key=unique_key(record.key, seen))


def unique_key(name: str, seen: Counter[str]) -> str:
    """The key of an image that is stored under this name, after those of its shard that were `seen` before."""
    key = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    seen[key] += 1
    # Something may be called `a.jpg@2` from the start.
    return key if seen[key] == 1 else unique_key(f"{key}@{seen[key]}", seen)


def _read_tar(shard: Shard, ignored: Counter[str]) -> Iterator[Record]:
    """As WebDataset packs them: an image and its sidecar are neighbours, in either order."""
    with store.open_unchanged(shard.uri, shard.identity) as stream:
        sample: list[Record] = []
        try:
            with _breaking(shard, "the tar breaks off", "what came before is kept"):
                for member in archives.tar_members(stream):
                    if not _is_wanted(member.name, member.size, ignored):
                        continue
                    if not member.is_file:
                        ignored["(link or device)"] += 1
                        continue
                    record = _record(member)
                    if sample and not _belongs(record, sample):
                        yield from _with_sidecar(sample)
                        sample = []
                    sample.append(record)
        except ShardBroken:
            yield from _with_sidecar(sample)
            raise
        yield from _with_sidecar(sample)


def _belongs(member: Record, sample: list[Record]) -> bool:
    """Whether a member is of the same sample, and may be held with it."""
    full = len(sample) == _MAX_SAMPLE or sum(len(other.data or b"") for other in sample) > _HELD_BYTES
    return not full and sample_stem(member.key) == sample_stem(sample[0].key)


def _with_sidecar(sample: list[Record]) -> Iterator[Record]:
    sidecar = next((member.data for member in sample if not is_image(member.key) and member.data), None)
    for member in sample:
        if is_image(member.key):
            yield replace(member, metadata=_text(sidecar))


def _read_zip(shard: Shard, ignored: Counter[str]) -> Iterator[Record]:
    with store.open_unchanged(shard.uri, shard.identity) as stream:
        with _breaking(shard, "no readable zip directory", "upload it again"):
            members = archives.zip_members(stream)
        wanted = [member for member in members if _is_wanted(member.name, member.size, ignored)]
        sidecars = {sample_stem(member.name): member for member in wanted if not is_image(member.name)}
        for member in wanted:
            if is_image(member.name):
                sidecar = sidecars.get(sample_stem(member.name))
                yield replace(_record(member), metadata=_text(_record(sidecar).data) if sidecar else None)


def _record(member: Member) -> Record:
    error = _size_error(member.size)
    if error:
        return Record(member.name, None, error=error)
    try:
        return Record(member.name, member.read())
    except ImageError as error:
        return Record(member.name, None, error=error)


def _read_parquet(shard: Shard, ignored: Counter[str]) -> Iterator[Record]:
    with (
        store.open_unchanged(shard.uri, shard.identity) as stream,
        _breaking(shard, "not readable as Parquet", "write it again"),
    ):
        table = PictureTable(stream, shard.uri)
        for group in range(table.groups):
            for row in table.rows(group):
                metadata = row.metadata
                if metadata and not _is_wanted("metadata.json", len(metadata), ignored):
                    metadata = None
                if row.data is None:
                    error: ImageError | None = ImageError("null", "the image cell is null")
                else:
                    error = _size_error(len(row.data))
                yield Record(row.name, None if error else row.data, metadata, error)


def _read_folder(shard: Shard, ignored: Counter[str], known: Mapping[str, str]) -> Iterator[Record]:
    images, sidecars = _list_folder(shard, ignored)
    sidecars = {stem: entry for stem, entry in sidecars.items() if _is_wanted(entry.url, entry.size, ignored)}
    loose = [_Loose(entry, sidecars.get(sample_stem(entry.url))) for entry in images]
    try:
        for batch in _batches([image for image in loose if known.get(image.key) != image.identity]):
            yield from _fetch(batch)
        for image in loose:
            if known.get(image.key) == image.identity:
                yield Record(image.key, None, identity=image.identity, unchanged=True)
    except StorageError:
        _list_folder(shard, Counter())  # a file that has gone is a folder that has changed
        raise
    _list_folder(shard, Counter())


def _list_folder(shard: Shard, ignored: Counter[str]) -> tuple[list[Entry], dict[str, Entry]]:
    images, sidecars = folder_members(store.list_folder(shard.uri), ignored)
    if folder_identity(images, sidecars) != shard.identity:
        raise TransientError(f"{shard.uri}: images or sidecars came, went or changed since it was listed; try again")
    return images, sidecars


@dataclass(frozen=True)
class _Loose:
    """An image in a folder, and its sidecar."""

    image: Entry
    sidecar: Entry | None

    @property
    def key(self) -> str:
        return self.image.url.rpartition("/")[2]

    @property
    def identity(self) -> str:
        return f"{self.image.identity} {self.sidecar.identity}" if self.sidecar else self.image.identity


def _batches(loose: list[_Loose]) -> Iterator[list[_Loose]]:
    batch: list[_Loose] = []
    for each in loose:
        size = sum(other.image.size for other in batch) + each.image.size
        if batch and (len(batch) == _FOLDER_FETCH or size > _HELD_BYTES):
            yield batch
            batch = []
        batch.append(each)
    yield batch


def _fetch(batch: list[_Loose]) -> Iterator[Record]:
    files = {file for each in batch for file in (each.image, each.sidecar) if file and not _size_error(file.size)}
    data = dict(zip(files, store.read_many([file.url for file in files]), strict=True))
    for each in batch:
        metadata = _text(data.get(each.sidecar)) if each.sidecar else None
        yield Record(each.key, data.get(each.image), metadata, _size_error(each.image.size), each.identity)


def _is_wanted(name: str, size: int, ignored: Counter[str]) -> bool:
    """Whether this is an image, or a sidecar of bearable size."""
    if not is_wanted(name, ignored):
        return False
    if is_image(name) or size <= MAX_SIDECAR_BYTES:
        return True
    ignored["(sidecar too large)"] += 1
    return False


def _size_error(size: int) -> ImageError | None:
    if size <= MAX_IMAGE_BYTES:
        return None
    return ImageError("too_large", f"{size} bytes in one file; the limit is {MAX_IMAGE_BYTES}")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


@contextmanager
def _breaking(shard: Shard, what: str, remedy: str) -> Iterator[None]:
    """Around a format's reader: what it stumbles over is where the shard breaks.

    In hostile bytes these readers raise whatever they come upon, IndexErrors and MemoryErrors included; what the store
    raises comes as our own (`storage.StoreFile`).
    """
    try:
        yield
    except TraplineError:
        raise
    except Exception as error:
        raise ShardBroken(f"{shard.uri}: {what}: {in_one_line(error)}; {remedy}") from error
