import json
import os
import time
from pathlib import Path

import pytest

from tests.support.progress import run_progress
from trapline.run.heartbeat import Heartbeat, others
from trapline.run.manifest import Manifest, latest
from trapline.run.progress import Progress
from trapline.storage import store


def write(run: Progress, output: str, status: str = "running") -> Path:
    return Path(run.manifest(status).write(output))  # type: ignore[arg-type]


class TestHeartbeat:
    def test_rewrites_the_manifest_until_the_run_ends(self, tmp_path: Path) -> None:
        run = run_progress()
        asked: list[Manifest] = []

        def manifest() -> Manifest:
            asked.append(run.manifest("running"))
            return asked[-1]

        with Heartbeat(str(tmp_path), manifest, beat=0.02):
            while len(asked) < 3:
                time.sleep(0.01)
        assert len(list((tmp_path / "_trapline/runs").iterdir())) == 1
        beats = len(asked)
        closing = write(run, str(tmp_path), "complete")
        time.sleep(0.1)
        assert (len(asked), json.loads(closing.read_text())["status"]) == (beats, "complete")

    def test_outlives_a_store_that_refuses_it(self, tmp_path: Path) -> None:
        output = tmp_path / "output"
        output.write_bytes(b"a file where a folder should be")
        run = run_progress()
        with Heartbeat(str(output), lambda: run.manifest("running"), beat=0.02):
            time.sleep(0.1)
            output.unlink()
            while not (output / "_trapline/runs").exists():
                time.sleep(0.01)


class TestOthers:
    @pytest.fixture(params=["local", "s3"])
    def output(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"{request.getfixturevalue('bucket')}/out" if request.param == "s3" else str(tmp_path / "out")

    def test_are_those_whose_manifest_is_young_and_says_running(self, output: str) -> None:
        ended, busy, mine = run_progress(), run_progress(), run_progress()
        write(ended, output, "complete")
        write(busy, output)
        write(mine, output)
        found = others(output, mine.plan.run_id)
        assert [other["run_id"] for other in found] == [busy.plan.run_id]
        assert found[0]["fingerprint"]["digest"] == busy.plan.fingerprint.digest

    def test_a_run_that_was_killed_is_not_waited_for(self, tmp_path: Path) -> None:
        killed, mine = run_progress(), run_progress()
        path = write(killed, str(tmp_path))
        write(mine, str(tmp_path))
        assert len(others(str(tmp_path), mine.plan.run_id)) == 1
        before = time.time() - 200
        os.utime(path, (before, before))
        assert others(str(tmp_path), mine.plan.run_id) == []

    def test_a_run_that_was_killed_and_is_dated_ahead_is_not_waited_for(self, tmp_path: Path) -> None:
        killed, mine = run_progress(), run_progress()
        ahead = time.time() + 3600
        os.utime(write(killed, str(tmp_path)), (ahead, ahead))
        write(mine, str(tmp_path))
        assert others(str(tmp_path), mine.plan.run_id) == []

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("_0f0f.partial", b'{"run_id": "cut'),
            ("0.json", b'{"run_id": "cut'),
            ("1.json", b"[]"),
            ("2.json", b'{"status": "running"}'),
            ("3.json", b'{"status": "running", "run_id": 3, "fingerprint": {"digest": "ab"}}'),
            ("4.json", b"\xff\xfe\x00"),
            ("5.json", b'{"status": "running", "run_id": "3", "fingerprint": {"digest": "ab"}, "config": null}'),
            (
                "6.json",
                b'{"status": "running", "run_id": "3", "fingerprint": {"digest": "ab"}, "config": {"part": "9/8"}}',
            ),
            ("7.json", b'{"status": "running", "run_id": "3", "fingerprint": {"digest": "ab"}, "config": {"part": 5}}'),
            ("notes.txt", b"mine"),
        ],
    )
    def test_a_file_that_is_no_manifest_is_no_run(self, output: str, name: str, content: bytes) -> None:
        store.put(f"{output}/_trapline/runs/{name}", content)
        busy, mine = run_progress(), run_progress()
        write(busy, output)
        write(mine, output)
        assert [other["run_id"] for other in others(output, mine.plan.run_id)] == [busy.plan.run_id]
        assert latest(output) is None

    def test_age_goes_by_the_clock_of_the_store_and_not_by_ours(self, tmp_path: Path) -> None:
        # A store an hour behind, or ahead: what counts is the difference between two of its own stamps.
        for skew in (-3600, 3600):
            output = str(tmp_path / str(skew))
            busy, mine = run_progress(), run_progress()
            for run in (busy, mine):
                stamp = time.time() + skew
                os.utime(write(run, output), (stamp, stamp))
            assert len(others(output, mine.plan.run_id)) == 1


def test_stores_tell_when_a_file_was_modified(tmp_path: Path, bucket: str) -> None:
    before = time.time()
    for url in (f"{tmp_path}/a", f"{bucket}/a"):
        store.put(url, b"x")
        for entry in (store.stat(url), store.list_files(url)[0]):
            assert entry.modified is not None, url
            assert before - 2 < entry.modified.timestamp() < time.time() + 2, url
