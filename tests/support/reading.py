"""Reads shards for tests, and holds the readers to their contract."""

import io
import re
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from trapline.errors import ShardBroken, StorageError, TransientError, TraplineError
from trapline.sources.file_types import shard_format
from trapline.sources.records import Record, read
from trapline.sources.shards import Shard, folder_identity, folder_members
from trapline.storage import store


@dataclass
class Outcome:
    records: list[Record]
    error: TraplineError | None
    ignored: Counter[str]

    @property
    def images(self) -> dict[str, bytes | None]:
        return {record.key: record.data for record in self.records}

    @property
    def kinds(self) -> dict[str, str | None]:
        """Kind of error by key."""
        return {record.key: record.error.kind if record.error else None for record in self.records}

    @property
    def metadata(self) -> dict[str, str | None]:
        return {record.key: record.metadata for record in self.records}


def shard_of(url: Path | str) -> Shard:
    url = str(url)
    kind = shard_format(url)
    if kind and not Path(url).is_dir():
        entry = store.stat(url)
        return Shard(url, kind, entry.size, entry.identity, "unused")
    return Shard(url, "folder", 0, folder_identity(*folder_members(store.list_folder(url), Counter())), "unused")


def read_all(source: Path | str | Shard) -> Outcome:
    """Reads to the end or to an error of the three kinds that the contract allows."""
    shard = source if isinstance(source, Shard) else shard_of(source)
    outcome = Outcome([], None, Counter())
    try:
        for record in read(shard, outcome.ignored):
            assert (record.data is None and record.clip is None) == (record.error is not None)
            record.key.encode()
            outcome.records.append(record)
    except (ShardBroken, TransientError, StorageError) as error:
        outcome.error = error
    assert outcome.error is None or re.fullmatch(f"{re.escape(shard.uri)}: .+", str(outcome.error)), "not one line"
    assert len(outcome.images) == len(outcome.records), "a key repeats"
    return outcome


def read_sound(source: Path | str) -> Outcome:
    outcome = read_all(source)
    assert outcome.error is None
    return outcome


def read_broken(source: Path | str) -> Outcome:
    outcome = read_all(source)
    assert isinstance(outcome.error, ShardBroken)
    return outcome


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


def read_bytes(scratch: Path, name: str, data: bytes) -> Outcome:
    path = scratch / name
    path.write_bytes(data)
    return read_all(path)


def assert_contract_under_flips(scratch: Path, name: str, sound: bytes, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(1, 255)), min_size=1, max_size=6))
    content = bytearray(sound)
    for place, bits in flips:
        content[place] ^= bits
    outcome = read_bytes(scratch, name, bytes(content))
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)


def tar_bytes(members: dict[str, bytes], **options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def zip_bytes(
    members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, edit: Callable[[zipfile.ZipFile], None] | None = None
) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if edit:  # of the directory, which is written at the end
            edit(archive)
    return sink.getvalue()
