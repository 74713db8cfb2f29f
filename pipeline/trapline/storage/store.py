"""Stores, through fsspec: list, open, put. The only module that knows what kind of store a URL names.

Object stores (S3, GCS, Azure) publish an object in one request, so a put there is whole or not at all. Anywhere else we
write beside the target under a name that no reader's glob picks up, and rename.
"""

import errno
import io
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, TypeVar, cast

import fsspec
from botocore.exceptions import NoCredentialsError, ParamValidationError, PartialCredentialsError, ProfileNotFound
from fsspec.implementations.local import LocalFileSystem

from trapline.errors import PermanentError, StorageError, TransientError, TraplineError, in_one_line
from trapline.storage.local import LocalFiles, temporary_name

T = TypeVar("T")

# Stores whose `pipe_file` publishes a file whole.
_ATOMIC_STORES = {"file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}

_LOCAL = LocalFiles()

# Retries are ours (`retrying`), beside one of botocore's, which hides the single lost connection. A store that is dead
# without a word is given up after 6 x 2 timeouts of 15 s, which is 3 minutes.
_S3_OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "max_pool_connections": 64,
        "connect_timeout": 5,
        "read_timeout": 15,
    },
    "use_listings_cache": False,
}

# One range request of a stream; at 100 MB/s a block takes 80 ms, against some 20 ms of latency. Several are kept,
# because zip and Parquet are read at two places in turn: image and sidecar, column and column.
_STREAM = {"block_size": 8 * 2**20, "cache_type": "blockcache", "cache_options": {"maxblocks": 4}}
# A footer mostly fits in the 64 KiB that pyarrow asks for first.
_TAIL = {"block_size": 2**16, "cache_type": "readahead"}

# Small files that are fetched at the same time: hides the store's latency.
_FETCHES = 16

# Seconds between tries, on average: six tries in all.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)

# What stores call the thing that changes with the content, best first.
_VERSION_KEYS = (
    "ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "Last-Modified", "updated",
)  # fmt: skip

# Errors of the operating system that a pause does not mend.
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP}


@dataclass(frozen=True)
class Entry:
    """One file in a store.

    Attributes:
        url: as a user would write it: a plain absolute path for local files, `s3://bucket/key` and so on elsewhere.
        size: bytes.
        identity: size and etag (modification time where a store has no etag); changes when the content does.
        modified: by the store's clock; None where the store does not tell.
        arrived: likewise, when it came to be there; later than `modified` where a copy has kept a file's date.
    """

    url: str
    size: int
    identity: str
    modified: datetime | None = field(default=None, compare=False)
    arrived: datetime | None = field(default=None, compare=False)


class StoreFile(io.IOBase):
    """A file in a store, open for reading. What the store's client raises comes as our errors.

    Whatever else the reader of a format raises is thus about the bytes, and not about the store.
    """

    def __init__(self, url: str, file: Any) -> None:
        self._url = url
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer only at the end; raises StorageError or TransientError."""
        left = self._size - self.tell()
        size = left if size < 0 else min(size, left)  # makes room for what it is asked for
        return retrying(self._url, lambda: cast(bytes, self._file.read(size)))  # which moves on only when it succeeds

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position. Broken headers point anywhere: behind the end is the end, before the start is OSError."""
        position: int = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence] + offset
        if position < 0:
            raise OSError(errno.EINVAL, "a position before the start of the file")
        self._file.seek(min(position, self._size))
        return self.tell()

    def tell(self) -> int:
        """The position, in bytes."""
        position: int = self._file.tell()
        return position

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True


def absolute(url: str) -> str:
    """The URL in the one form that Trapline writes down: no trailing slash, absolute, no `file://`."""
    fs, path = _filesystem(url)
    return _url(fs, path)


def join(url: str, *parts: str) -> str:
    """The URL of something below `url`."""
    return "/".join([url.rstrip("/"), *parts])


def has_glob(url: str) -> bool:
    """Whether the URL is a pattern (`*`, `?`, `[…]`, `**`), and not a name that happens to look like one."""
    fs, path = _filesystem(url)
    return _has_magic(path) and not retrying(url, lambda: fs.exists(path))


def glob_base(pattern: str) -> str:
    """The last folder above a pattern's first wildcard."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if _has_magic(part))])


def list_files(url: str, missing_ok: bool = False) -> list[Entry]:
    """Every file at or below a URL, or matching it where it is a pattern (below a folder that matches: all), by name.

    Args:
        url: a file, a folder or a pattern.
        missing_ok: give an empty list where there is nothing.

    Raises:
        StorageError: there is nothing there, or we may not look.
        TransientError: the store did not answer, after retries.
    """
    fs, path = _filesystem(url)
    is_pattern = has_glob(url)

    def listing() -> list[dict[str, Any]]:
        found = _matching(fs, path) if is_pattern else list(fs.find(path, detail=True).values())
        if not found and not missing_ok and (is_pattern or not fs.exists(path)):
            raise StorageError(f"{url}: {'no match' if is_pattern else 'not found'}; check the bucket and the path")
        return found

    return sorted(_entries(fs, retrying(url, listing)), key=lambda entry: entry.url)


def list_folder(url: str) -> list[Entry]:
    """The files directly in a folder, by name; raises as `list_files` does."""
    fs, path = _filesystem(url)
    infos = retrying(url, lambda: fs.ls(path, detail=True))
    return sorted(_entries(fs, infos), key=lambda entry: entry.url)


def stat(url: str) -> Entry:
    """One file as it is now.

    Raises:
        StorageError: it is not there, or we may not look.
        TransientError: the store did not answer, after retries.
    """
    fs, path = _filesystem(url)
    return retrying(url, lambda: _entry(fs, fs.info(path)))


@contextmanager
def open_unchanged(url: str, identity: str) -> Iterator[IO[bytes]]:
    """A file that must stay what it was when it was listed, from open to close.

    Raises:
        TransientError: the file changed since, or the store did not answer.
        StorageError: it is gone, or we may not read it.
    """
    _check_identity(url, identity)
    with _open(url, _STREAM) as file:
        try:
            yield file
        except PermanentError:
            _check_identity(url, identity)  # what changes under us looks broken, and is not
            raise
    _check_identity(url, identity)


@contextmanager
def open_tail(url: str) -> Iterator[IO[bytes]]:
    """A file for readers of footers: fetches little more than it is asked for; raises as `stat` does."""
    with _open(url, _TAIL) as file:
        yield file


def read_end(entry: Entry, length: int) -> bytes:
    """The last bytes of a file whose size is known, in one request; raises as `stat` does."""
    fs, path = _filesystem(entry.url)
    start = max(0, entry.size - length)
    return retrying(entry.url, lambda: cast(bytes, fs.cat_file(path, start=start, end=entry.size)))


def read_many(urls: list[str]) -> list[bytes]:
    """The contents of several small files, fetched at the same time; raises as `stat` does."""

    def fetch(url: str) -> bytes:
        fs, path = _filesystem(url)
        data: bytes = retrying(url, lambda: fs.cat_file(path))
        return data

    with ThreadPoolExecutor(_FETCHES) as threads:
        return list(threads.map(fetch, urls))


def read_text(url: str) -> str:
    """A small text file in UTF-8; raises as `stat` does."""
    try:
        return read_many([url])[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StorageError(f"{url}: no UTF-8 text ({error.reason} at byte {error.start}); convert it") from error


def put(url: str, data: bytes) -> None:
    """Publish a file: whole or not at all, replacing what was there.

    Raises:
        StorageError: the store refuses us (credentials, missing bucket, read-only, disk full).
        TransientError: the store did not answer, after retries.
    """
    fs, path = _filesystem(url)
    if _protocol(fs) in _ATOMIC_STORES:
        retrying(url, lambda: fs.pipe_file(path, data))
    else:
        beside = f"{path.rpartition('/')[0]}/{temporary_name()}"
        retrying(url, lambda: (fs.pipe_file(beside, data), fs.mv(beside, path)))


def put_file(url: str, path: str) -> None:
    """Publish a file of this machine, which may be larger than memory; otherwise as `put`."""
    fs, target = _filesystem(url)
    if _protocol(fs) in _ATOMIC_STORES:
        retrying(url, lambda: fs.put_file(path, target))
    else:
        beside = f"{target.rpartition('/')[0]}/{temporary_name()}"
        retrying(url, lambda: (fs.put_file(path, beside), fs.mv(beside, target)))


def remove(url: str) -> None:
    """Delete a file; one that is not there is no error. Raises as `put` does."""
    fs, path = _filesystem(url)

    def action() -> None:
        with suppress(FileNotFoundError):
            fs.rm_file(path)

    retrying(url, action)


def remote(url: str) -> Any:
    """The fsspec filesystem of a URL, for a library that reads by itself (DuckDB); None for files of this machine."""
    fs, _ = _filesystem(url)
    return None if fs is _LOCAL else fs


def version(info: dict[str, Any]) -> str:
    """What a store says that changes with a file's content: its etag, or when it was modified; empty if it does not."""
    return next((str(info[key]).strip('"') for key in _VERSION_KEYS if info.get(key) is not None), "")


def retrying(url: str, action: Callable[[], T]) -> T:
    """Do it, and again while the store's trouble may pass, after ever longer pauses with jitter."""
    for pause in _PAUSES:
        try:
            with translated(url):
                return action()
        except TransientError:
            time.sleep(pause * random.uniform(0.5, 1.5))
    with translated(url):
        return action()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what a store's client raises into our errors, in one line with the store's own words."""
    try:
        yield
    except TraplineError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{url}: not found ({in_one_line(error)}); check the bucket and the path") from error
    except PermissionError as error:
        raise StorageError(f"{url}: access denied ({in_one_line(error)}); check credentials and permissions") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; check the URL and AWS_PROFILE") from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise StorageError(f"{url}: {in_one_line(error)}; choose another path") from error
    # Each store's client brings exceptions of its own (aiohttp's, botocore's, gcsfs's, Azure's); many are no OSError.
    except Exception as error:
        if getattr(error, "errno", None) in _HOPELESS:
            raise StorageError(f"{url}: {in_one_line(error)}") from error
        raise TransientError(f"{url}: {in_one_line(error)}") from error


@contextmanager
def _open(url: str, options: dict[str, Any]) -> Iterator[IO[bytes]]:
    fs, path = _filesystem(url)
    with translated(url):
        file = fs.open(path, "rb", **options)
    with file:
        yield cast(IO[bytes], StoreFile(url, file))


def _check_identity(url: str, identity: str) -> None:
    now = stat(url).identity
    if now != identity:
        raise TransientError(f"{url}: changed while it was being read (was {identity}, is {now})")


def _matching(fs: Any, pattern: str) -> list[dict[str, Any]]:
    """What matches a pattern, where folders stand for all that lies below them."""
    matches: dict[str, dict[str, Any]] = fs.glob(pattern, detail=True)
    found = []
    folder = None
    for path in sorted(matches, key=lambda path: path.split("/")):  # a folder, then at once what lies below it
        if folder and path.startswith(f"{folder}/"):
            continue
        if matches[path]["type"] == "directory":
            folder = path
            found += fs.find(path, detail=True).values()
        else:
            found.append(matches[path])
    return found


def _entries(fs: Any, infos: Iterable[dict[str, Any]]) -> list[Entry]:
    # A key that ends in a slash is what S3 consoles leave for a folder.
    return [_entry(fs, info) for info in infos if info["type"] == "file" and not info["name"].endswith("/")]


def _entry(fs: Any, info: dict[str, Any]) -> Entry:
    size = int(info["size"] or 0)
    modified = _time(info, "LastModified", "last_modified", "mtime")
    placed = _time(info, "ctime") if fs is _LOCAL else None
    arrived = max(modified, placed) if modified and placed else modified
    return Entry(_url(fs, info["name"]), size, f"{size}-{version(info)}", modified, arrived)


def _time(info: dict[str, Any], *names: str) -> datetime | None:
    # S3, Azure and GCS give datetimes, files of this machine nanoseconds.
    stamp = next((info[name] for name in names if info.get(name)), None)
    if isinstance(stamp, int):
        return datetime.fromtimestamp(stamp / 1e9, UTC)
    return stamp if isinstance(stamp, datetime) and stamp.tzinfo else None


def _filesystem(url: str) -> tuple[Any, str]:
    """The filesystem (of which fsspec keeps one for all) and the path in it."""
    options = _S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(f"{url}: {error}") from error
    if options:
        fs.retries = 1  # s3fs would try five times around each of ours, and around those that do so themselves 25 times
    if isinstance(fs, LocalFileSystem):
        return _LOCAL, os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links, and name their targets
    return fs, path.rstrip("/") or "/"


def _protocol(fs: Any) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


def _url(fs: Any, path: str) -> str:
    return path if fs is _LOCAL else fs.unstrip_protocol(path)


def _has_magic(text: str) -> bool:
    return any(character in text for character in "*?[")
