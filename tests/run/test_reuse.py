"""A folder that grew: the rows of its unchanged images are taken over, and only the others are read."""

import pickle
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.support.archives import jpeg, pictures, sidecar, write_folder
from tests.support.store_files import folder_for_all, unprivileged
from trapline.config import RunConfig
from trapline.model import checkpoint
from trapline.results.ledger import plan
from trapline.results.verify import reconcile
from trapline.run.job import Job, columns_of, fingerprint
from trapline.run.messages import PredictedChunk, Task
from trapline.run.packing import unpack
from trapline.run.workers import PredictorActor, Reader
from trapline.run.writer import commit
from trapline.sources.shards import discover


class Folder:
    """Of loose images; each call is a night, without what moves the rows about; it gives how many were carried over."""

    def __init__(self, path: Path, model: Path) -> None:
        self.loose, self.output = path / "archive/loose", path / "output"
        self.model = checkpoint.load(str(model))

    def __call__(self, **options: Any) -> int:
        config = RunConfig(inputs=("in",), output="out", model="m", **options)
        columns, mark = columns_of(config, self.model), fingerprint(config, self.model, "fp32")
        self.mark = mark
        job = Job(self.model.size, 4, "cpu", "fp32", columns, mark.digest)
        inputs, output = [str(self.loose.parent)], str(self.output)
        (shard,) = discover(inputs, output).shards
        read = pa.concat_tables(Reader(job)(pa.table({"task": [pickle.dumps(Task(shard))]})))
        chunks = list(unpack(PredictorActor(job, lambda: self.model)(read)))
        assert all(isinstance(chunk, PredictedChunk) for chunk in chunks), chunks
        commit(chunks, columns, mark)  # type: ignore[arg-type]
        assert all(finding.good for finding in reconcile(inputs, output))
        return sum(len(chunk.rows) for chunk in chunks if isinstance(chunk, PredictedChunk) and chunk.carried)

    def rows(self) -> dict[str, tuple[Any, ...]]:
        found = duckdb.sql(f"select key, status, * from read_parquet('{self.output}/**/*.parquet')").fetchall()
        return {row[0]: row for row in found}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Folder:
    made = Folder(tmp_path, tiny_model)
    write_folder(
        made.loose, pictures(20, prefix="") | {"0003.json": sidecar(a=1), "0005.json": sidecar(a=1), "empty.jpg": b""}
    )
    return made


@pytest.fixture
def first(folder: Folder) -> dict[str, tuple[Any, ...]]:
    assert folder() == 0
    return folder.rows()


def test_added_images_alone_are_read(folder: Folder, first: dict[str, tuple[Any, ...]]) -> None:
    write_folder(folder.loose, {"new.jpg": jpeg(77), "cut.jpg": jpeg(78)[:1000]})
    assert folder() == 21
    rows = folder.rows()
    assert len(rows) == 23
    assert {key: rows[key] for key in first} == first
    assert [rows[key][1] for key in ("new.jpg", "cut.jpg")] == ["ok", "salvaged"]


@pytest.mark.usefixtures("first")  # imports what a night needs, see `unprivileged`
def test_what_may_not_be_read_is_a_row_until_it_may(tiny_model: Path) -> None:
    with folder_for_all() as root:
        root.chmod(0o777)
        folder = Folder(root, tiny_model)
        write_folder(folder.loose, pictures(5, prefix=""))
        closed = folder.loose / "0002.jpg"
        closed.chmod(0)

        def is_done() -> bool:
            (shard,) = discover([str(folder.loose.parent)], str(folder.output)).shards
            return bool(plan([shard], str(folder.output), folder.mark, replace=False).done)

        with unprivileged():
            assert folder() == 0
            rows = folder.rows()
            assert [row[1] for _, row in sorted(rows.items())] == ["ok", "ok", "failed", "ok", "ok"]
            assert not is_done()
            assert folder() == 4
            assert folder.rows() == rows
        closed.chmod(0o644)
        assert folder() == 4
        assert {row[1] for row in folder.rows().values()} == {"ok"}
        assert is_done()


def test_what_changed_with_its_sidecar_is_read_again_and_what_went_is_gone(
    folder: Folder, first: dict[str, tuple[Any, ...]]
) -> None:
    (folder.loose / "0001.jpg").write_bytes(jpeg(99))
    (folder.loose / "0002.jpg").unlink()
    (folder.loose / "0003.json").write_bytes(sidecar(a=2))
    (folder.loose / "0004.json").write_bytes(sidecar(a=2))
    (folder.loose / "0005.json").unlink()
    (folder.loose / "0006.jpg").touch()
    carried = folder()
    rows = folder.rows()
    read_again = {"0001.jpg", "0003.jpg", "0004.jpg", "0005.jpg", "0006.jpg"}
    assert carried == len(rows) - len(read_again)
    assert rows.keys() == {path.name for path in folder.loose.iterdir() if path.suffix == ".jpg"}
    for key, row in rows.items():
        assert (row == first[key]) == (key not in read_again), key


def test_rows_that_were_computed_otherwise_are_not_taken_over(
    folder: Folder, first: dict[str, tuple[Any, ...]]
) -> None:
    write_folder(folder.loose, {"new.jpg": jpeg(77)})
    assert folder(top_k=2) == 0


def test_a_result_that_cannot_be_read_is_no_loss(folder: Folder, first: dict[str, tuple[Any, ...]]) -> None:
    result = folder.output / "loose/images.parquet"
    data = bytearray(result.read_bytes())
    data[4:3000] = bytes(2996)  # pages, not the footer
    result.write_bytes(data)
    write_folder(folder.loose, {"new.jpg": jpeg(77)})
    assert folder() == 0
    rows = folder.rows()
    assert len(rows) == 22
    assert {key: rows[key] for key in first} == first
