import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.progress import run_progress
from trapline.results.ledger import survey_all
from trapline.run.retention import tidy
from trapline.storage import store
from trapline.storage.store import Entry


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('bucket')}/out" if request.param == "s3" else str(tmp_path / "out")


def write(output: str, run_id: str, status: str = "complete") -> str:
    return replace(run_progress().manifest("running"), run_id=run_id, status=status).write(output)  # type: ignore[arg-type]


def kept(output: str, what: str = "runs") -> list[str]:
    found = store.list_files(f"{output}/_trapline/{what}", missing_ok=True)
    return [entry.url.rpartition("/")[2] for entry in found]


def test_the_last_runs_are_kept(output: str) -> None:
    for run in ("20260103", "20260101", "20260104", "20260102"):
        write(output, run)
    tidy(output, 4, "20260104")
    assert len(kept(output)) == 4
    tidy(output, 2, "20260104")
    assert kept(output) == ["20260103.json", "20260104.json"]


def test_a_run_that_is_at_work_is_never_forgotten(output: str) -> None:
    write(output, "20260101", "running")
    for run in ("20260102", "20260103"):
        write(output, run)
    tidy(output, 1, "20260103")
    assert kept(output) == ["20260101.json", "20260103.json"]


def test_a_run_that_was_killed_is_forgotten_like_others(tmp_path: Path) -> None:
    killed = write(str(tmp_path), "20260101", "running")
    write(str(tmp_path), "20260102")
    before = time.time() - 200
    os.utime(killed, (before, before))
    tidy(str(tmp_path), 1, "20260102")
    assert kept(str(tmp_path)) == ["20260102.json"]


def test_what_is_no_manifest_is_left_alone(tmp_path: Path) -> None:
    write(str(tmp_path), "20260101")
    for name in ("0.json", "0.txt"):
        (tmp_path / "_trapline/runs" / name).write_text("[]")
    write(str(tmp_path), "20260102")
    tidy(str(tmp_path), 1, "20260102")
    assert kept(str(tmp_path)) == ["0.json", "0.txt", "20260102.json"]


def test_an_output_without_runs_is_no_error(tmp_path: Path) -> None:
    tidy(str(tmp_path), 1, "20260101")


def test_boxes_of_runs_that_are_over_are_deleted_and_never_those_of_one_at_work(output: str) -> None:
    for run, status in (("20260101", "aborted"), ("20260102", "running"), ("20260103", "complete")):
        write(output, run, status)
    for run in ("20260100", "20260101", "20260102"):  # the first of them has no manifest any more
        store.put(f"{output}/_trapline/detections/{run}", b"boxes")
    tidy(output, 10, "20260103")
    assert kept(output, "detections") == ["20260102"]
    assert len(kept(output)) == 3


def test_boxes_of_a_run_that_was_killed_are_deleted(tmp_path: Path) -> None:
    output = str(tmp_path)
    killed = write(output, "20260101", "running")
    store.put(f"{output}/_trapline/detections/20260101", b"boxes")
    write(output, "20260102")
    tidy(output, 10, "20260102")
    assert kept(output, "detections") == ["20260101"]  # it may be at work, for all we know
    before = time.time() - 200
    os.utime(killed, (before, before))
    tidy(output, 10, "20260102")
    assert kept(output, "detections") == []
    assert len(kept(output)) == 2


def age(path: str, seconds: float) -> None:
    """Date a file back; ahead where `seconds` are negative."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("folder", ["runs", "detections"])
def test_a_file_that_was_never_finished_goes_once_it_is_old(tmp_path: Path, folder: str) -> None:
    output = str(tmp_path)
    write(output, "20260101")
    for name in ("_old.partial", "_young.partial"):
        store.put(f"{output}/_trapline/{folder}/{name}", b"half of it")
    age(f"{output}/_trapline/{folder}/_old.partial", 200)
    tidy(output, 10, "20260101")
    # The young one may be another run's, which is still writing it.
    assert [name for name in kept(output, folder) if name.endswith(".partial")] == ["_young.partial"]


def test_a_manifest_that_is_dated_ahead_makes_no_active_run_old(tmp_path: Path) -> None:
    output = str(tmp_path)
    write(output, "20260101", "running")
    store.put(f"{output}/_trapline/detections/20260101", b"boxes")
    age(write(output, "20260102", "running"), -3600)
    write(output, "20260103")
    tidy(output, 1, "20260103")
    assert kept(output) == ["20260101.json", "20260103.json"]
    assert kept(output, "detections") == ["20260101"]


class TestAmongTheResults:
    @pytest.fixture
    def left(self, tmp_path: Path) -> list[Entry]:
        """An old and a young file of killed writes, one that has gone since, and three that are not of that name."""
        output = str(tmp_path)
        write(output, "20260101")
        write(output, "20260102")
        for name in ("site=1/_old.partial", "_young.partial", "_gone.partial", "site=1/a.partial", "_b.parquet", "c"):
            store.put(f"{output}/{name}", b"half of it")
            age(f"{output}/{name}", 0 if "young" in name else 200)
        _, found = survey_all(output)
        (tmp_path / "_gone.partial").unlink()
        return found

    def rest(self, folder: Path) -> set[str]:
        return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"}

    def test_what_killed_writes_left_goes_once_it_is_old(self, tmp_path: Path, left: list[Entry]) -> None:
        tidy(str(tmp_path), 10, "20260102", left)
        assert self.rest(tmp_path) == {"_young.partial", "a.partial", "_b.parquet", "c"}

    def test_it_stays_while_another_run_is_at_work(self, tmp_path: Path, left: list[Entry]) -> None:
        write(str(tmp_path), "20260101", "running")
        tidy(str(tmp_path), 10, "20260102", left)
        assert self.rest(tmp_path) == {"_old.partial", "_young.partial", "a.partial", "_b.parquet", "c"}

    def test_one_that_has_grown_since_it_was_listed_stays(self, tmp_path: Path, left: list[Entry]) -> None:
        (tmp_path / "site=1/_old.partial").write_bytes(b"more of it")
        tidy(str(tmp_path), 10, "20260102", left)
        assert "_old.partial" in self.rest(tmp_path)
