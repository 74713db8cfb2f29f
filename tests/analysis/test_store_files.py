import random
from pathlib import Path

import pytest

from trapline.analysis.store_files import PREFIX, StoreFiles, name_of
from trapline.errors import StorageError
from trapline.storage import store

SIZE = 1_000_000


def test_only_names_without_a_meaning_are_given_as_they_are() -> None:
    assert name_of("/a/b c.parquet") == "/a/b c.parquet"
    for url in ("/a/[b].parquet", "/a/*", "/a/b?", "s3://b/a.parquet", "s3://b/[a] 1%.parquet"):
        name = name_of(url)
        assert name.startswith(PREFIX)
        assert not set("*?[]{}#: ").intersection(name.removeprefix(PREFIX))


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "[a]"
    path.write_bytes(random.Random(0).randbytes(SIZE))
    return str(path)


def test_reads_what_the_file_holds_wherever_it_is_asked_for(url: str) -> None:
    data = Path(url).read_bytes()
    rng = random.Random(1)
    with StoreFiles().open(name_of(url)) as file:
        for _ in range(200):
            start, length = rng.randrange(SIZE + 10), rng.choice([0, 8, 1000, 300_000, -1])
            file.seek(start)
            end = SIZE if length < 0 else start + length
            assert file.read(length) == data[start:end]
            assert file.tell() == max(start, min(end, SIZE))


def test_a_footer_takes_one_request(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = store.read_range

    def count(entry: store.Entry, start: int, end: int) -> bytes:
        asked.append((start, end))
        return read(entry, start, end)

    monkeypatch.setattr(store, "read_range", count)
    with StoreFiles().open(name_of(url)) as file:
        for before_the_end in (8, 30_000, 8):
            file.seek(-before_the_end, 2)
            file.read(before_the_end)
    assert asked == [(SIZE - 2**16, SIZE)]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"\[gone\]: not found"):
        StoreFiles().info(name_of(f"{tmp_path}/[gone]"))
