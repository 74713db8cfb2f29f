"""What a result file says about itself, in the key-value metadata of its Parquet footer."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from trapline import __version__
from trapline.errors import StorageError, TransientError
from trapline.results.fingerprint import Fingerprint
from trapline.sources.file_types import CLIP_SUFFIXES, OTHER
from trapline.sources.loose_images import UNAVAILABLE
from trapline.sources.sidecars import UNAVAILABLE_SIDECAR
from trapline.storage import store
from trapline.storage.store import Entry

T = TypeVar("T")

_KEY = "trapline."
VERSION_KEY = f"{_KEY}version"
FINGERPRINT_KEY = f"{_KEY}fingerprint"
CLASSES_KEY = f"{_KEY}classes"
_SHARD_KEY = f"{_KEY}shard"

# A result's footer has some 30 KB, most of it the names of the classes.
_FOOTER_BYTES = 2**16
_MAGIC = b"PAR1"
# Footers that are read at the same time: at some 20 ms a request, this many keep one core of the driver busy.
_THREADS = 32


@dataclass(frozen=True)
class Footer:
    """What a result file says about itself.

    Attributes:
        uri: the shard that the rows come from.
        identity: size and etag of that shard as it was read.
        fingerprint: how the rows were computed.
        images: images and clips by status: ok, salvaged, failed.
        reasons: kinds of error, counted.
        species: the most probable class, counted.
        ignored: files that were neither images, clips nor sidecars, by suffix.
        broken: why the shard could not be read to its end; None for a sound one.
        size: bytes of the shard.
        crops: rows of crops; not part of `images`.
        clips: how many of `images` are clips.
        frames: rows of the clips' frames; not part of `images`.
        unmatched: images that a detector saw in the shard, but that the shard does not hold.
    """

    uri: str
    identity: str
    fingerprint: Fingerprint
    images: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    species: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    broken: str | None = None
    size: int = 0
    crops: int = 0
    clips: int = 0
    frames: int = 0
    unmatched: int = 0

    @property
    def has_clips(self) -> bool:
        """Return whether the shard holds clips, including those that `--no-video` left out or took for bad images."""
        return bool(self.clips or "video" in self.reasons or (CLIP_SUFFIXES | {OTHER}) & self.ignored.keys())

    @property
    def unavailable(self) -> int:
        """Return how many images and sidecars could not be read; another day they may be readable, unchanged."""
        return self.reasons.get(UNAVAILABLE, 0) + self.ignored.get(UNAVAILABLE_SIDECAR, 0)

    @property
    def depends_on(self) -> Fingerprint:
        """Return what the rows depend on: the fingerprint, without the options for clips if there are none."""
        return self.fingerprint if self.has_clips else self.fingerprint.without_clips()

    def to_metadata(self) -> dict[str, str]:
        """Return the key-value metadata of a Parquet file."""
        plain = {name: value for name, value in asdict(self).items() if name != "fingerprint"}
        return {
            VERSION_KEY: __version__,
            FINGERPRINT_KEY: self.fingerprint.to_json(),
            _SHARD_KEY: json.dumps(plain, ensure_ascii=False),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes]) -> "Footer | None":
        """Read what `to_metadata` wrote; return None if the file is not a result.

        Unknown fields are ignored and missing ones get their default, so that versions can add and remove fields.
        """
        known = {field.name for field in fields(cls)}
        try:
            plain = json.loads(metadata[_SHARD_KEY.encode()])
            fingerprint = Fingerprint.from_json(metadata[FINGERPRINT_KEY.encode()].decode())
            return cls(fingerprint=fingerprint, **{name: plain[name] for name in known & plain.keys()})
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def find(url: str) -> Footer | None:
    """Return the footer of the result at a URL as it is now; None if there is none, or it cannot be read."""
    try:
        return read_footer(store.stat(url))
    except (StorageError, TransientError):
        return None


def read_footer(entry: Entry) -> Footer | None:
    """Return the footer of a result file; None if it is not a result, or not Parquet at all.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    metadata = read_metadata(entry)
    return metadata and Footer.from_metadata(metadata.metadata or {})


def read_metadata(entry: Entry) -> pq.FileMetaData | None:
    """Return the footer of a Parquet file; None if the file is something else, or is damaged.

    If another run has replaced the file since it was listed, the new file is read.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    trouble = None
    try:
        if found := _read_metadata(entry):
            return found
    except TransientError as error:
        trouble = error
    now = store.stat(entry.url)
    if now.identity != entry.identity:
        return _read_metadata(now)
    if trouble:
        raise trouble
    return None


def _read_metadata(entry: Entry) -> pq.FileMetaData | None:
    end = store.read_end(entry, _FOOTER_BYTES)
    length = int.from_bytes(end[-8:-4], "little") + 8
    if not end.endswith(_MAGIC) or length > entry.size:
        return None
    if length > len(end):
        end = store.read_end(entry, length)
    try:
        return pq.read_metadata(pa.BufferReader(end))
    except (pa.ArrowException, OSError):  # Arrow raises a bare OSError for a damaged footer
        return None


def read_each(entries: Iterable[Entry], read: Callable[[Entry], T]) -> list[T]:
    """Read the footers of many files at the same time; raises as `read` does."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(read, entries))
