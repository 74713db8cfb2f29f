"""Ray is started or joined once, in silence, and leaves the process's own signals and streams as they were."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import enumerate as enumerate_threads
from time import monotonic, sleep

import pytest
import ray

from trapline import ray_session
from trapline.cpu_count import usable_cpus


@pytest.mark.parametrize(("address", "shared"), [(None, False), ("", False), ("10.0.0.1:6379", True), ("auto", True)])
def test_a_cluster_is_shared_where_ray_address_names_one(
    address: str | None, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert ray_session.on_shared_cluster() is shared


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_connected_already_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ray.get_runtime_context().get_job_id()
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    before = signal.getsignal(signal.SIGTERM)
    ray_session.connect()
    assert ray.get_runtime_context().get_job_id() == job
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_ray_of_its_own_starts_in_silence_with_a_token_that_no_file_holds(tmp_path: Path) -> None:
    code = """
import json, os, signal
from trapline.ray_session import connect
def stop(*args): ...
signal.signal(signal.SIGTERM, stop)
connect()
import ray
token = os.environ["RAY_AUTH_TOKEN"]
connect()
print(json.dumps({
    "handler": signal.getsignal(signal.SIGTERM) is stop, "cores": ray.cluster_resources()["CPU"], "token": len(token),
    "same": token == os.environ["RAY_AUTH_TOKEN"],
}))
ray.shutdown()
"""
    env = os.environ | {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"handler": True, "cores": max(2, usable_cpus()), "token": 64, "same": True}
    assert done.stderr == ""
    assert not (tmp_path / ".ray").exists()


@pytest.mark.slow
def test_a_command_has_ray_started_meanwhile_and_its_processes_end_with_it() -> None:
    code = """
import os, sys, time
from trapline.ray_session import connect, run_command, start_in_background
def command():
    start_in_background()
    stderr = sys.stderr  # as a print that Ray's start interrupts holds it
    import ray
    count = 0
    while not ray.is_initialized():
        print("while Ray starts", file=stderr)
        count += 1
        time.sleep(0.01)
    import ray.data  # which sets up a log of its own
    connect()
    ray.data.range(1).map(lambda row: row).materialize()
    print(ray.get(ray.remote(lambda: 6 * 7).remote()), os.environ["RAY_AUTH_TOKEN"], count)
    return 3
run_command(command)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    answer, token, count = done.stdout.split()
    assert (done.returncode, answer, done.stderr) == (3, "42", "while Ray starts\n" * int(count))
    # Ray's agent by itself lives for a minute longer.
    until = monotonic() + 30
    while left := [path for path in Path("/proc").glob("[0-9]*/environ") if token in _text(path)]:
        assert monotonic() < until, left
        sleep(0.1)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def test_a_command_that_fails_meanwhile_does_not_wait_for_ray() -> None:
    code = """
from trapline.ray_session import run_command, start_in_background
def command():
    start_in_background()
    return 2
run_command(command)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_that_ends_while_a_process_of_ray_starts_leaves_none_behind() -> None:
    # The process is forked after those are listed that must end, and is not yet set to die with the command.
    code = """
import os, select, time
import ray
from trapline import ray_session
reading, writing = os.pipe()
list_processes, set_to_die = ray_session._descendants, ray._private.utils.set_kill_on_parent_death_linux
def list_and_wait():
    listed = list_processes()
    select.select([reading], [], [], 3)
    return listed
def set_to_die_later():
    os.write(writing, b"forked")
    time.sleep(1)
    set_to_die()
ray_session._descendants, ray._private.utils.set_kill_on_parent_death_linux = list_and_wait, set_to_die_later
def command():
    ray_session.start_in_background()
    return 2
ray_session.run_command(command)
"""
    token = token_hex(32)
    env = os.environ | {"RAY_AUTH_TOKEN": token}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 2
    sleep(2)
    left = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if token in _text(path)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_ray_starts_in_the_background_of_a_command_alone() -> None:
    ray_session.start_in_background()
    assert "ray start" not in [thread.name for thread in enumerate_threads()]


@pytest.mark.parametrize("fails", [False, True])
def test_what_python_says_while_ray_starts_arrives(fails: bool, capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with suppress(RuntimeError), ray_session._silent_stderr():
        os.write(2, b"by C++ code\n")
        print("by Python code", file=sys.stderr)
        if fails:
            raise RuntimeError
    assert sys.stderr is before
    assert capfd.readouterr().err == "by Python code\n"


@pytest.mark.parametrize("fails", [False, True])
def test_what_c_code_says_while_ray_starts_is_discarded_and_standard_error_comes_back(
    fails: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def start() -> None:
        with ray_session._silent_stderr():
            os.write(2, b"by C++ code\n")
            if fails:
                raise RuntimeError

    os.write(2, b"before\n")
    if fails:
        with pytest.raises(RuntimeError):
            start()
    else:
        start()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
