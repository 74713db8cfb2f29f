"""List, open, stat, put and remove files at any URL.

Object stores (S3, GCS, Azure) publish an object in one request, so a put there is whole or not at all. Elsewhere a file
is written beside its target, under a name that no reader's glob matches, and renamed.
"""

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from trapline.errors import PermanentError, StorageError, TransientError
from trapline.storage.filesystems import LOCAL, publishes_whole, resolve, url_of
from trapline.storage.local import temporary_name
from trapline.storage.retry import with_retries

# One range request of a stream; at 100 MB/s a block takes 80 ms, against some 20 ms of latency. Several are kept,
# because zip and Parquet are read at two places in turn: image and sidecar, column and column.
_BLOCK = 8 * 2**20
_STREAM = {"block_size": _BLOCK, "cache_type": "blockcache", "cache_options": {"maxblocks": 4}}
# A footer mostly fits in the 64 KiB that pyarrow asks for first.
_TAIL = {"block_size": 2**16, "cache_type": "readahead"}

# Small files that are fetched at the same time: hides the store's latency. Their sizes are not asked for beforehand.
_FETCHES = 16
_SMALL = 2**26

# Names that stores give to what changes with the content, best first.
_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "Last-Modified", "updated",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file in a store.

    Attributes:
        url: as a user would write it: a plain absolute path for local files, `s3://bucket/key` and so on elsewhere.
        size: bytes.
        identity: size and etag (modification time where a store has no etag); changes when the content does.
        modified: by the store's clock; None if the store does not say.
        arrived: when the file was put there, by the same clock; later than `modified` if a copy kept the file's date.
    """

    url: str
    size: int
    identity: str
    modified: datetime | None = field(default=None, compare=False)
    arrived: datetime | None = field(default=None, compare=False)


class StoreFile(io.IOBase):
    """A file in a store, open for reading, that raises Trapline's errors when the store fails.

    Any other error that a format's reader raises is therefore about the bytes.
    """

    def __init__(self, url: str, file: Any) -> None:
        self._url = url
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer only at the end; raise StorageError or TransientError."""
        left = self._size - self.tell()
        size = left if size < 0 else min(size, left)  # fsspec allocates what it is asked for
        # A cache fetches whole blocks; the position moves on only when reading succeeds.
        received = size + _BLOCK
        data = with_retries(self._url, lambda: cast(bytes, self._file.read(size)), received=received)
        return _complete(self._url, data, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, at most to the end; raise OSError before the start. Broken headers point to either."""
        position: int = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence] + offset
        if position < 0:
            raise OSError(errno.EINVAL, "a position before the start of the file")
        self._file.seek(min(position, self._size))
        return self.tell()

    def tell(self) -> int:
        """Return the position, in bytes."""
        position: int = self._file.tell()
        return position

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True


def absolute(url: str) -> str:
    """Return the URL in the one form that Trapline writes down: absolute, no trailing slash, no `file://`."""
    fs, path = resolve(url)
    return url_of(fs, path)


def join(url: str, *parts: str) -> str:
    """Return the URL of something below `url`."""
    return "/".join([url.rstrip("/"), *parts])


def has_glob(url: str) -> bool:
    """Return whether the URL is a pattern (`*`, `?`, `[…]`, `**`), and not the name of something that exists."""
    fs, path = resolve(url)
    return _has_magic(path) and not with_retries(url, lambda: _exists(fs, path))


def glob_base(pattern: str) -> str:
    """Return the last folder above a pattern's first wildcard."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if _has_magic(part))])


def list_files(url: str, missing_ok: bool = False, left_out: Callable[[str], bool] | None = None) -> list[Entry]:
    """List every file at or below a URL, in the order of names.

    Args:
        url: a file, a folder or a pattern; a folder that matches a pattern stands for all files below it.
        missing_ok: return an empty list where there is nothing.
        left_out: whether a local file or folder without read permission may be skipped.

    Raises:
        StorageError: there is nothing there, or listing is not allowed.
        TransientError: the store did not answer, after retries.
    """
    fs, path = resolve(url)
    is_pattern = has_glob(url)
    options = _leaving_out(fs, left_out)

    def listing() -> list[dict[str, Any]]:
        found = _matching(fs, path, options) if is_pattern else list(fs.find(path, detail=True, **options).values())
        if not found and not missing_ok and (is_pattern or not _exists(fs, path)):
            raise StorageError(f"{url}: {'no match' if is_pattern else 'not found'}; check the bucket and the path")
        return found

    return sorted(_entries(fs, with_retries(url, listing, received=None)), key=lambda entry: entry.url)


def list_folder(url: str, left_out: Callable[[str], bool] | None = None) -> list[Entry]:
    """List the files directly in a folder, in the order of names; arguments and errors as of `list_files`."""
    fs, path = resolve(url)
    infos = with_retries(url, lambda: fs.ls(path, detail=True, **_leaving_out(fs, left_out)), received=None)
    return sorted(_entries(fs, infos), key=lambda entry: entry.url)


def stat(url: str) -> Entry:
    """Return facts of one file as it is now.

    Raises:
        StorageError: it is not there, or looking is not allowed.
        TransientError: the store did not answer, after retries.
    """
    fs, path = resolve(url)
    return with_retries(url, lambda: _entry(fs, fs.info(path)))


@contextmanager
def open_unchanged(url: str, identity: str) -> Iterator[IO[bytes]]:
    """Open a file that must stay, until it is closed, what it was when it was listed.

    Raises:
        TransientError: the file has changed, or the store did not answer.
        StorageError: it is gone, or reading is not allowed.
    """
    _check_identity(url, identity)
    with _open(url, _STREAM) as file:
        try:
            yield file
        except PermanentError:
            _check_identity(url, identity)  # a file that changes while it is read looks broken
            raise
    _check_identity(url, identity)


@contextmanager
def open_tail(url: str) -> Iterator[IO[bytes]]:
    """Open a file to read its footer: fetches little more than is asked for; raise as `stat` does."""
    with _open(url, _TAIL) as file:
        yield file


def read_end(entry: Entry, length: int) -> bytes:
    """Read the last bytes of a file whose size is known, in one request; raises as `stat` does."""
    return read_range(entry, max(0, entry.size - length), entry.size)


def read_range(entry: Entry, start: int, end: int) -> bytes:
    """Read the bytes from `start` to before `end`, in one request; raises as `stat` does."""
    fs, path = resolve(entry.url)
    data = with_retries(entry.url, lambda: cast(bytes, fs.cat_file(path, start=start, end=end)), received=end - start)
    return _complete(entry.url, data, end - start)


def read_many(files: Iterable[str | Entry]) -> list[bytes]:
    """Read several small files at the same time; raise as `stat` does, and TransientError if a size has changed."""

    def fetch(file: str | Entry) -> bytes:
        entry = Entry(file, 0, "") if isinstance(file, str) else file
        fs, path = resolve(entry.url)
        data: bytes = with_retries(entry.url, lambda: fs.cat_file(path), received=_SMALL)
        return _complete(entry.url, data, entry.size or len(data))

    with ThreadPoolExecutor(_FETCHES) as threads:
        return list(threads.map(fetch, files))


def _complete(url: str, data: bytes, size: int) -> bytes:
    if len(data) == size:
        return data
    raise TransientError(f"{url}: {len(data)} of {size} bytes came; it has changed, or the connection loses some")


def read_text(url: str) -> str:
    """Read a small text file in UTF-8; raise as `stat` does."""
    try:
        return read_many([url])[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f"{url}: not UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def put(url: str, data: bytes) -> None:
    """Publish a file: whole or not at all, replacing what was there.

    Raises:
        StorageError: the store refuses (credentials, missing bucket, read-only, disk full).
        TransientError: the store did not answer, after retries.
    """
    _publish(url, len(data), lambda fs, target: fs.pipe_file(target, data))


def put_file(url: str, path: str) -> None:
    """Publish a local file, which may be larger than memory; raise as `put` does."""
    _publish(url, Path(path).stat().st_size, lambda fs, target: fs.put_file(path, target))


def _publish(url: str, size: int, write: Callable[[Any, str], object]) -> None:
    fs, path = resolve(url)
    if publishes_whole(fs):
        with_retries(url, lambda: write(fs, path), sent=size)
    else:
        beside = f"{path.rpartition('/')[0]}/{temporary_name()}"
        with_retries(url, lambda: (write(fs, beside), fs.mv(beside, path)), sent=size)


def remove(url: str) -> None:
    """Delete a file, if it is there; raise as `put` does."""
    fs, path = resolve(url)

    def action() -> None:
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    with_retries(url, action)


def reconnect(url: str) -> None:
    """Use new connections to the store of a URL from now on, in this process; open files keep theirs."""
    fs, _ = resolve(url)
    if fs is not LOCAL:
        type(fs).clear_instance_cache()


def remote(url: str) -> Any:
    """Return the fsspec filesystem of a URL; None for local files."""
    fs, _ = resolve(url)
    return None if fs is LOCAL else fs


def version(info: dict[str, Any]) -> str:
    """Return the etag of a file, or what else changes with its content; empty if the store has none of these."""
    return next((str(info[key]).strip('"') for key in _VERSION_KEYS if info.get(key) is not None), "")


@contextmanager
def _open(url: str, options: dict[str, Any]) -> Iterator[IO[bytes]]:
    fs, path = resolve(url)
    with with_retries(url, lambda: fs.open(path, "rb", **options)) as file:
        yield cast(IO[bytes], StoreFile(url, file))


def _check_identity(url: str, identity: str) -> None:
    now = stat(url).identity
    if now != identity:
        raise TransientError(f"{url}: changed while it was being read (was {identity}, is {now})")


def _matching(fs: Any, pattern: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what matches a pattern; a folder that matches stands for all files below it, found with these options."""
    matches: dict[str, dict[str, Any]] = fs.glob(pattern, detail=True, **options)
    found = []
    folder = None
    for path in sorted(matches, key=lambda path: path.split("/")):  # what lies below a folder follows it
        if folder and path.startswith(f"{folder}/"):
            continue
        if matches[path]["type"] == "directory":
            folder = path
            found += fs.find(path, detail=True, **options).values()
        else:
            found.append(matches[path])
    return found


def _leaving_out(fs: Any, left_out: Callable[[str], bool] | None) -> dict[str, Any]:
    return {"left_out": left_out} if fs is LOCAL and left_out else {}


def _exists(fs: Any, path: str) -> bool:
    # Not fs.exists: that of s3fs says no where a bucket does not answer.
    with suppress(FileNotFoundError):
        return bool(fs.info(path))
    return False


def _entries(fs: Any, infos: Iterable[dict[str, Any]]) -> list[Entry]:
    # A key that ends in a slash is what S3 consoles leave for a folder.
    return [_entry(fs, info) for info in infos if info["type"] == "file" and not info["name"].endswith("/")]


def _entry(fs: Any, info: dict[str, Any]) -> Entry:
    size = int(info["size"] or 0)
    modified = _time(info, "LastModified", "last_modified", "mtime")
    placed = _time(info, "ctime") if fs is LOCAL else None
    arrived = max(modified, placed) if modified and placed else modified
    return Entry(url_of(fs, info["name"]), size, f"{size}-{version(info)}", modified, arrived)


def _time(info: dict[str, Any], *names: str) -> datetime | None:
    # S3, Azure and GCS give datetimes, local files nanoseconds.
    stamp = next((info[name] for name in names if info.get(name)), None)
    if isinstance(stamp, int):
        return datetime.fromtimestamp(stamp / 1e9, UTC)
    return stamp if isinstance(stamp, datetime) and stamp.tzinfo else None


def _has_magic(text: str) -> bool:
    return any(character in text for character in "*?[")
