"""A folder that grew: the rows of its unchanged images are taken over, and only the others are read."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.support.archives import jpeg, pictures, sidecar, write_folder
from tests.support.store_files import folder_for_all, unprivileged
from trapline.config import RunConfig
from trapline.model import checkpoint
from trapline.results.ledger import Plan, plan
from trapline.results.verify import reconcile
from trapline.run.job import Job, columns_of, fingerprint
from trapline.run.messages import AlreadyDone, PredictedChunk, Task
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
        columns, self.mark = columns_of(config, self.model), fingerprint(config, self.model, "fp32")
        self.job = Job(self.model.size, 4, "cpu", "fp32", columns, self.mark.digest)
        chunks = self.read()
        assert all(isinstance(chunk, PredictedChunk) for chunk in chunks), chunks
        commit(chunks, columns, self.mark)  # type: ignore[arg-type]
        inputs, output = [str(self.loose.parent)], str(self.output)
        assert all(finding.good for finding in reconcile(inputs, output))
        return sum(len(chunk.rows) for chunk in chunks if isinstance(chunk, PredictedChunk) and chunk.carried)

    def read(self) -> list[Any]:
        (shard,) = discover([str(self.loose.parent)], str(self.output)).shards
        read = pa.concat_tables(Reader(self.job)(pa.table({"task": [pickle.dumps(Task(shard))]})))
        return list(unpack(PredictorActor(self.job, lambda: self.model)(read)))

    def metadata(self) -> set[str]:
        """Return the keys of the images whose metadata are in the result."""
        query = f"select key from read_parquet('{self.output}/**/*.parquet') where metadata is not null"
        return {key for (key,) in duckdb.sql(query).fetchall()}

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
class TestUnavailable:
    """Files of a folder of five images that may not be read, until they may."""

    @pytest.fixture
    def loose(self, tiny_model: Path) -> Iterator[Folder]:
        with folder_for_all() as root:
            root.chmod(0o777)
            made = Folder(root, tiny_model)
            write_folder(made.loose, pictures(5, prefix="") | {"0001.json": sidecar(a=1), "0002.json": sidecar(a=1)})
            yield made

    def plan(self, loose: Folder) -> Plan:
        shards = discover([str(loose.loose.parent)], str(loose.output)).shards
        return plan(shards, str(loose.output), loose.mark, replace=False)

    def test_an_image_is_a_row_until_it_may_be_read(self, loose: Folder) -> None:
        closed = loose.loose / "0002.jpg"
        closed.chmod(0)
        with unprivileged():
            assert loose() == 0
            rows = loose.rows()
            assert [row[1] for _, row in sorted(rows.items())] == ["ok", "ok", "failed", "ok", "ok"]
            found = self.plan(loose)
            assert (len(found.todo), len(found.unavailable), len(found.done)) == (0, 1, 0)
        closed.chmod(0o644)
        assert loose() == 4
        assert {row[1] for row in loose.rows().values()} == {"ok"}
        assert self.plan(loose).done

    def test_a_sidecar_is_read_as_soon_as_it_may_be(self, loose: Folder) -> None:
        closed = loose.loose / "0001.json"
        closed.chmod(0)
        with unprivileged():
            assert loose() == 0
        assert loose.metadata() == {"0002.jpg"}
        assert self.plan(loose).unavailable
        closed.chmod(0o644)
        assert loose() == 4
        assert loose.metadata() == {"0001.jpg", "0002.jpg"}
        assert self.plan(loose).done

    def test_what_stays_unavailable_leaves_the_result_as_it_is(self, loose: Folder) -> None:
        closed = [loose.loose / name for name in ("0001.json", "0002.json", "0002.jpg")]
        for file in closed:
            file.chmod(0)
        with unprivileged():
            assert loose() == 0
            (item,) = loose.read()
            assert isinstance(item, AlreadyDone)
            assert item.footer.unavailable == 3
        closed[2].chmod(0o644)  # the image, without its sidecar
        with unprivileged():
            assert loose() == 3
        assert {row[1] for row in loose.rows().values()} == {"ok"}
        assert loose.metadata() == set()
        closed[1].chmod(0o644)
        with unprivileged():
            assert loose() == 3
        assert loose.metadata() == {"0002.jpg"}


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
