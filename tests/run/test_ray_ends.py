"""Ray's own processes die, do not start, or are left behind: a run says so, and closes what it has opened."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.nights import Night, Run
from tests.support.servers import descendants

pytestmark = pytest.mark.slow


def pids(run: Run, program: str) -> list[int]:
    """Processes of a run by their program's name."""
    return [pid for pid in descendants(run.process.pid) if program in command(pid).partition("\0")[0]]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


@pytest.mark.parametrize(("program", "name"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_a_run_whose_ray_dies_is_closed_and_says_so(program: str, name: str, tmp_path: Path, tiny_model: Path) -> None:
    night = Night.make(tmp_path, tiny_model, shards=40)
    told = tmp_path / "told"
    with night.running("--notify", f"cat > {told}") as run:
        run.until_committed(1)
        (victim,) = pids(run, program)
        os.kill(victim, signal.SIGKILL)
        assert run.wait(60) == 2, run.said
    why = f"Ray has ended: its {name} died or was stopped; run the same command again to carry on"
    assert run.said.splitlines()[-1] == f"trapline: {why}"
    assert "Traceback" not in run.said
    (manifest,) = night.manifests()
    assert (manifest["status"], manifest["ended_by"]) == ("aborted", why)
    assert json.loads(told.read_text()) == manifest
    night.finish()
    assert night.verify() == 800


def test_a_run_of_its_own_ray_writes_no_token_into_the_home_folder_and_nothing_but_json_into_its_log(
    tmp_path: Path, tiny_model: Path
) -> None:
    night = Night.make(tmp_path, tiny_model, shards=2, images=2)
    home = tmp_path / "home"
    home.mkdir()
    # As users have it: Ray turns its tokens on by itself.
    run = night.finish("--log", "json", env={"HOME": str(home), "RAY_AUTH_MODE": "token"})
    assert [json.loads(line)["event"] for line in run.said.splitlines()][-1] == "end"
    assert night.verify() == 4
    assert not (home / ".ray").exists()


def test_a_ray_that_does_not_start_is_one_line(tmp_path: Path, tiny_model: Path) -> None:
    night = Night.make(tmp_path, tiny_model, shards=2, images=2)
    (tmp_path / "file").write_text("where Ray wants a folder")
    with night.running(env={"RAY_TMPDIR": str(tmp_path / "file")}) as run:
        assert run.wait(120) == 2, run.said
    (line,) = run.said.splitlines()
    assert line.startswith("trapline: Ray does not start on this machine (")
    assert night.manifests()[0]["status"] == "aborted"
