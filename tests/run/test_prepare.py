"""What is wrong with a run is found while it is planned: nothing is written, and Ray is not needed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import pictures, write_folder, write_tar
from tests.support.runs import Run
from trapline.errors import CheckpointError, StorageError, UsageError
from trapline.results.footer import Footer
from trapline.run.prepare import Prepared, prepare
from trapline.storage import store


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Run:
    return Run(tmp_path, tiny_model)


def plan(run: Run, **options: Any) -> Prepared:
    return prepare(run.config(**options))


@pytest.mark.parametrize("option", ["inputs", "output"])
def test_a_place_in_the_folder_of_a_submitted_job_is_refused(
    run: Run, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(run.archive / "a.tar", pictures(2))
    # Where `ray job submit --working-dir` starts a job.
    folder = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_0a1b"
    write_tar(folder / "here/a.tar", pictures(2))
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=r"here: is in the folder that Ray has unpacked .*absolute path or a URL"):
        plan(run, **{option: ("here",) if option == "inputs" else "here"})
    (folder / "list").write_text("here\n")
    with pytest.raises(UsageError, match=r"a.tar: is in the folder that Ray has unpacked"):
        plan(run, inputs=("@list",))
    assert not run.output.exists()


def test_a_deadline_that_is_over_is_named(run: Run) -> None:
    with pytest.raises(UsageError, match="--stop-at 2020-01-01T06:00: is over"):
        plan(run, stop_at="2020-01-01T06:00")


def test_a_partition_that_is_not_there_is_named(run: Run) -> None:
    write_tar(run.archive / "site=12/a.tar", pictures(2))
    with pytest.raises(UsageError, match="--where site=99: no shard"):
        plan(run, where=("site=99",))


def test_a_missing_input_is_named(run: Run) -> None:
    with pytest.raises(StorageError, match=r"archive: not found"):
        plan(run)


def test_an_input_without_images_is_named(run: Run) -> None:
    write_folder(run.archive, {"notes.txt": b"x"})
    with pytest.raises(UsageError, match=r"archive: holds no shard"):
        plan(run)


def test_a_missing_model_is_named(run: Run) -> None:
    write_tar(run.archive / "a.tar", pictures(2))
    with pytest.raises(CheckpointError, match=r"nothing\.pt"):
        plan(run, model="nothing.pt")


@pytest.mark.parametrize("stop_at", [None, "2999-01-01T06:00"])
def test_folders_with_unavailable_files_come_last(run: Run, stop_at: str | None) -> None:
    for name in ("a", "b", "c"):
        write_folder(run.archive / name, pictures(1))
    first = plan(run).plan
    for shard, reasons in zip(first.todo[::2], ({"unavailable": 1}, {}), strict=True):
        footer = Footer(shard.uri, shard.identity, first.fingerprint, {"ok": 1, "failed": 1}, reasons)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(footer.to_metadata()), sink)
        store.put(shard.output, sink.getvalue().to_pybytes())
    found = plan(run, stop_at=stop_at).plan
    assert [Path(shard.uri).parent.name for shard in found.todo] == ["b", "a"]
    assert [Path(result.shard or "").parent.name for result in found.already_done] == ["c"]
