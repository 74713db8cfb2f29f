"""A command on one machine has only the processes of Ray that a run uses; what Ray starts otherwise, it starts as usual."""

import os
import re
import signal
import subprocess
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

import pytest
import ray

from tests.support.nights import Night
from tests.support.servers import descendants
from trapline.ray_processes import few_actors, few_services, one_at_a_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and is for Linux alone")


def title(pid: int) -> str:
    """The name of a process, or what Ray has it do, or "stand-in"."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:  # it has ended
        return ""
    if "-IS" in words:
        return "stand-in"
    return words[0] if words[0].startswith("ray::") else Path(words[0]).name


def test_a_run_has_no_process_that_it_does_not_use(tmp_path: Path, tiny_model: Path) -> None:
    night = Night.make(tmp_path, tiny_model, shards=4)
    seen = set[str]()
    with night.running() as run:
        while run.process.poll() is None:
            seen |= {title(pid) for pid in descendants(run.process.pid)}
            sleep(0.05)
        assert run.process.returncode == 0, run.said
    assert night.verify() == 80
    programs = {name for name in seen if not name.startswith(("ray::", "python"))}
    assert programs - {"", "sh", "ldconfig"} == {"gcs_server", "raylet", "stand-in"}
    workers = {re.split(r"[(.]", name.removeprefix("ray::"))[0] for name in seen if name.startswith("ray::")}
    assert workers - {"IDLE"} == {"MapBatches", "MapWorker", "ActorLocationTracker"}


COMMAND = """
import time
from trapline import ray_session
def command():
    ray_session.connect()
    import ray
    print(ray.get(ray.remote(lambda: 6 * 7).remote()), flush=True)
    time.sleep(60)
ray_session.run_command(command)
"""


@contextmanager
def running(code: str, **env: str) -> Iterator[dict[int, str]]:
    """A process whose Ray has computed; gives what it has started, by process id."""
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        answer = process.stdout.readline()
        below = {pid: title(pid) for pid in descendants(process.pid)}
        try:
            assert answer == "42\n"
            yield below
        finally:
            process.kill()
            for pid in below:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_no_stand_in_outlives_its_raylet() -> None:
    with running(COMMAND) as below:
        stand_ins = [pid for pid, name in below.items() if name == "stand-in"]
        assert len(stand_ins) == 2
        (raylet,) = [pid for pid, name in below.items() if name == "raylet"]
        os.kill(raylet, signal.SIGKILL)
        until = monotonic() + 10
        while any(title(pid) == "stand-in" for pid in stand_ins):
            assert monotonic() < until
            sleep(0.05)


@pytest.mark.parametrize(
    "env",
    [
        {"RAY_RUNTIME_ENV_HOOK": "nowhere.hook"},  # as under `uv run`
        {"RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"env_vars": {"A": "1"}}}'},  # as in a job of a cluster
    ],
)
def test_a_runtime_environment_of_the_users_is_for_clusters(env: dict[str, str]) -> None:
    with running(COMMAND, **env) as below:
        assert "stand-in" in below.values()
        assert "ray::DashboardAgent" not in below.values()


def test_a_ray_that_does_not_start_with_few_processes_starts_with_all() -> None:
    code = "import ray\ndef persist_port(*_): raise RuntimeError\nray._raylet.persist_port = persist_port\n" + COMMAND
    with running(code) as below:
        assert "ray::DashboardAgent" in below.values()


def test_a_program_that_does_more_than_a_command_has_all_of_ray() -> None:
    with running(COMMAND.replace("ray_session.run_command(command)", "command()")) as below:
        assert "ray::DashboardAgent" in below.values()


def test_a_ray_data_that_wants_more_of_its_coordinator_keeps_its_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.data._internal import cluster_autoscaler, stats

    class More(cluster_autoscaler.AutoscalingCoordinator):
        @abstractmethod
        def more(self) -> None: ...

    before = stats.get_or_create_stats_actor
    monkeypatch.setattr(stats, "get_or_create_stats_actor", before)
    monkeypatch.setattr(cluster_autoscaler, "AutoscalingCoordinator", More)
    few_actors()
    assert stats.get_or_create_stats_actor is before


def test_ray_is_as_before_once_it_has_started() -> None:
    def replaced() -> list[object]:
        private = ray._private
        return [private.node.Node, private.services.start_ray_process, private.worker._maybe_modify_runtime_env]

    before = replaced()
    with suppress(RuntimeError), one_at_a_time(Lock()), few_services():
        assert not [one for one, other in zip(before, replaced(), strict=True) if one is other]
        raise RuntimeError
    assert replaced() == before
