"""Files that tests of stores write and list."""

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.storage import store


def write(path: Path, data: bytes = b"x") -> Path:
    """Write a local file, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(url: str, below: str) -> list[str]:
    """Return the names of the files at `url`, relative to `below`."""
    return [entry.url.removeprefix(f"{below}/") for entry in store.list_files(url)]


def one_line(error: BaseException) -> str:
    """Return what an error says, after checking that it is one line."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    return text


def parquet(rows: int) -> bytes:
    """Return a Parquet file of random numbers."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"x": pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(os.urandom(8 * rows))])}), sink
    )
    return bytes(sink.getvalue())


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that `unprivileged` may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Hold this process to the permissions of files, which do not bind root.

    Modules may lie where only root may look: what is done inside must have been done before, for what it imports.
    """
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        importlib.invalidate_caches()  # which hold "no such folder" for places that only root may enter
