"""Choose the fsspec filesystem for a URL, and its options."""

import os
from pathlib import Path
from typing import Any

import fsspec
from fsspec import available_protocols
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from trapline.errors import StorageError, in_one_line
from trapline.storage.local import LocalFiles
from trapline.storage.watched_loop import watched_loop

LOCAL = LocalFiles()

# Filesystem -> scheme and authority of its URLs, where its paths do not name the host or account.
_AUTHORITIES: dict[Any, str] = {}

# Stores whose `pipe_file` publishes a file whole.
_ATOMIC_STORES = {"file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}


def resolve(url: str) -> tuple[Any, str]:
    """Return the filesystem of a URL (of which fsspec keeps one per process and set of options) and the path in it.

    Raises:
        StorageError: the URL is empty, lacks a slash, names no bucket or no filesystem, or the filesystem's package is
            not installed.
    """
    if not url:  # such as an unset variable of a shell; the current folder is `.`
        raise StorageError("an empty path or URL was given; give a path, a URL, or . for the current folder")
    scheme, slash, path = url.partition(":/")
    is_cut = slash and not path.startswith("/") and scheme != "file" and scheme in available_protocols()
    if is_cut and not Path(f"{scheme}:").exists():
        raise StorageError(f"{url}: is neither a path nor a URL; write {scheme}://{path}")
    # fsspec would take `site::1.tar` for a chain of filesystems.
    if "://" not in url or url.startswith("file://"):
        return LOCAL, os.path.abspath(LOCAL._strip_protocol(url))  # noqa: PTH100  # resolve() would follow links
    try:
        if url.startswith(("s3://", "s3a://")):
            # Imported here: it takes 0.4 s, which each process of a run over local files would spend for nothing.
            from trapline.storage.s3 import S3Files, s3_files

            if path := S3Files._strip_protocol(url):
                return s3_files(), path
            raise StorageError(f"{url}: names no bucket; give s3://BUCKET or s3://BUCKET/PREFIX")
        fs, path = fsspec.core.url_to_fs(url)
    except StorageError:
        raise
    # Clients connect, load libraries or read credentials when they are made, and raise errors of any type.
    except Exception as error:
        reason = in_one_line(error)
        raise StorageError(f"{url}: {reason}; check the URL, and what its store needs on this machine") from error
    if isinstance(fs, LocalFileSystem):
        return LOCAL, os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links, and name their targets
    fs = _watched(fs)
    authority = url.partition("://")[2].partition("/")[0]
    if fs._get_kwargs_from_urls(url) and not f"{path}/".startswith(f"{authority}/"):
        _AUTHORITIES[fs] = f"{url.partition('://')[0]}://{authority}"
    return fs, path.rstrip("/") or "/"


def _watched(fs: Any) -> Any:
    """Return a filesystem like this one, on the watched loop if it is asynchronous."""
    if not isinstance(fs, AsyncFileSystem):
        return fs
    options = {**fs.storage_options, "loop": watched_loop()}
    if "http" in fs.protocol:
        # Imported here: it takes 0.1 s, which each process of a run over local files would spend for nothing.
        from aiohttp import ClientTimeout

        # aiohttp ends each request after five minutes by default, and a checkpoint may take longer.
        timeout = ClientTimeout(total=None)
        options["client_kwargs"] = {"timeout": timeout, **options.get("client_kwargs", {})}
    return type(fs)(*fs.storage_args, **options)


def url_of(fs: Any, path: str) -> str:
    """Return the URL of a path in a filesystem, without a password: a plain absolute path for local files."""
    if fs is LOCAL:
        return path
    if fs not in _AUTHORITIES:
        return str(fs.unstrip_protocol(path))
    scheme, _, authority = _AUTHORITIES[fs].partition("://")
    user, at, host = authority.rpartition("@")
    if path.startswith("/"):
        return f"{scheme}://{user.partition(':')[0]}{at}{host}{path}"
    container, slash, below = path.partition("/")
    return f"{scheme}://{container}@{host}{slash}{below}" if at else f"{scheme}://{host}/{path}"


def publishes_whole(fs: Any) -> bool:
    """Return whether a file that is put there is visible only when it is complete."""
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return protocol in _ATOMIC_STORES
