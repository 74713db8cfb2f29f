"""Choose the fsspec filesystem for a URL, and its options."""

import os
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from trapline.errors import StorageError
from trapline.storage.local import LocalFiles

LOCAL = LocalFiles()

# Stores whose `pipe_file` publishes a file whole.
_ATOMIC_STORES = {"file", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}

# Retries are those of `storage/retry.py`, beside one of botocore's, which hides the single lost connection. A store
# that never answers is given up after 6 x 2 timeouts of 15 s, which is 3 minutes.
_S3_OPTIONS: dict[str, Any] = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "max_pool_connections": 64,
        "connect_timeout": 5,
        "read_timeout": 15,
    },
    "use_listings_cache": False,
}


def resolve(url: str) -> tuple[Any, str]:
    """Return the filesystem of a URL (of which fsspec keeps one per process and set of options) and the path in it.

    Raises:
        StorageError: there is no such filesystem, or its package is not installed.
    """
    options = _S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(f"{url}: {error}") from error
    if options:
        fs.retries = 1  # s3fs would try five times within each of our tries, and 25 times where it nests its own
    if isinstance(fs, LocalFileSystem):
        return LOCAL, os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links, and name their targets
    return fs, path.rstrip("/") or "/"


def url_of(fs: Any, path: str) -> str:
    """Return the URL of a path in a filesystem: a plain absolute path for local files."""
    return path if fs is LOCAL else fs.unstrip_protocol(path)


def publishes_whole(fs: Any) -> bool:
    """Return whether a file that is put there is visible only when it is complete."""
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return protocol in _ATOMIC_STORES
