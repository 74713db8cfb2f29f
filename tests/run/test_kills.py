"""Processes die at every moment, by SIGKILL, and in the end each image is one row."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import write_tar
from tests.support.bad_decoder import CRASH, STARVE, bmp, write_saboteur
from tests.support.checkout import ROOT
from tests.support.nights import Night, seeded
from tests.support.servers import RayHead, descendants, kill_tree, ray_head, ray_node

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
def test_a_driver_killed_at_twenty_random_moments(tmp_path: Path, tiny_model: Path) -> None:
    random = seeded(20261124)
    images = 10
    night = Night.make(tmp_path, tiny_model, shards=60, images=images)
    struck_at_work = 0
    # On a cluster that outlives its drivers, so that what they leave behind there is met by the next.
    with ray_head(tmp_path) as head:
        cluster = {"RAY_ADDRESS": head.gcs_address, "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "1"}
        for _ in range(20):
            if len(night.results) > 40:
                shutil.rmtree(night.output)  # there must be something left to do
            with night.running(env=cluster) as run:
                before = len(night.results)
                # Half of them at any moment from the start on, half of them once it works.
                at_work = random.random() < 0.5
                if at_work:
                    run.until_committed(before + 1)
                moment = time.monotonic() + random.uniform(0, 2 if at_work else 8)
                while time.monotonic() < moment and run.process.poll() is None:
                    # What a reader sees meanwhile: whole shards, each once, and no file that is half written.
                    rows, different = night.count()
                    assert rows == different
                    assert rows % images == 0
                run.process.kill()
                run.process.wait()
                struck_at_work += len(night.results) > before
            rows, different = night.count()
            assert rows == different == images * len(night.results)
        assert struck_at_work >= 8, "most were struck before they did anything"
        night.finish(env=cluster)
    assert night.verify() == 600


def memory() -> tuple[int, int]:
    """Bytes that this machine uses, and has."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total - available, total


class TestAWorker:
    def test_that_dies_costs_time_and_no_row(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=32)
        with night.running() as run:
            # In this order: while a new predictor starts, readers may come to the end of the archive.
            for kind in ("Reader", "PredictorActor"):
                run.until_committed(len(night.results) + 2)
                run.until(lambda kind=kind: run.workers(kind))
                for pid in run.workers(kind):
                    os.kill(pid, signal.SIGKILL)
            assert run.wait() == 0, run.said
        assert night.verify() == 640

    def test_that_dies_of_an_image_makes_it_a_row_that_says_so(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=3, images=4)
        bad = {"a.bmp": bmp(40), "b.bmp": bmp(CRASH), "c.bmp": bmp(41), "d.bmp": bmp(STARVE)}
        write_tar(night.archive / "bad.tar", bad)
        night.finish(env={"PYTHONPATH": write_saboteur(tmp_path)})
        assert night.verify() == 16
        (manifest,) = night.manifests()
        assert manifest["images"] == {"ok": 14, "salvaged": 0, "failed": 2}
        assert manifest["reasons"] == {"crashed": 1, "out_of_memory": 1}

    def test_that_is_killed_for_want_of_memory_costs_time_and_no_row(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=48)
        used, total = memory()
        # Ray's own killer, which watches the whole machine. The run itself takes some 2 GB.
        limit = {"RAY_memory_usage_threshold": f"{(used + 6e9) / total:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
        with night.running(env=limit) as run:
            run.until_committed(2)
            before = set(run.workers("Reader") + run.workers("PredictorActor"))
            hog = bytearray(int(used + 6.5e9 - memory()[0]))
            hog[::4096] = b"x" * len(hog[::4096])
            run.until(lambda: before - set(run.workers("Reader") + run.workers("PredictorActor")))
            del hog
            assert run.wait() == 0, run.said
        assert night.verify() == 960


class TestANode:
    @pytest.fixture
    def head(self, tmp_path: Path) -> Iterator[RayHead]:
        """Without cores: all work is on nodes."""
        with ray_head(tmp_path, num_cpus=0, host="127.0.0.2") as head:
            yield head

    @pytest.mark.parametrize("with_actor", [True, False])
    def test_that_dies_costs_time_and_no_row(
        self, with_actor: bool, head: RayHead, tmp_path: Path, tiny_model: Path
    ) -> None:
        night = Night.make(tmp_path, tiny_model, shards=16)
        with (
            ray_node(head, tmp_path, 2, "127.0.0.3") as one,
            ray_node(head, tmp_path, 2, "127.0.0.4") as two,
            night.running(env={"RAY_ADDRESS": head.gcs_address}) as run,
        ):
            run.until_committed(3)
            victim = next(node for node in (one, two) if with_actor == bool(self.processes(node.pid, "PredictorActor")))
            kill_tree(victim)
            assert run.wait() == 0, run.said
        assert night.verify() == 320

    @staticmethod
    def processes(root: int, kind: str) -> list[int]:
        return [pid for pid in descendants(root) if kind in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")]


class TestTwoRunsAtOnce:
    def test_share_the_work_and_leave_each_row_once(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=36)
        with night.running() as first:
            first.until(night.manifests)
            with night.running() as second:
                assert [run.wait() for run in (first, second)] == [0, 0], first.said + second.said
        assert night.verify() == 720
        assert "is at work on the same output" in second.said
        one, two = night.manifests()
        assert one["status"] == two["status"] == "complete"
        assert two["shards_committed"] > 0
        # They meet in the middle: what both had under way at that moment is done twice, and nothing else.
        assert 36 <= one["shards_committed"] + two["shards_committed"] <= 36 + 8

    def test_with_other_options_the_second_is_refused(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=12)
        with night.running() as first:
            first.until(night.manifests)
            with night.running("--top-k", "2") as second:
                assert second.wait() == 2
                assert "is writing there with another model or other options" in second.said
                # Inside: at the end of this context ends whatever has started since its beginning.
                assert first.wait() == 0
        assert night.verify() == 240


class TestStopped:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_by_a_signal_it_ends_within_seconds_and_says_how_to_go_on(
        self, how: signal.Signals, tmp_path: Path, tiny_model: Path
    ) -> None:
        night = Night.make(tmp_path, tiny_model, shards=16)
        with night.running() as run:
            run.until_committed(2)
            run.process.send_signal(how)
            assert run.wait(seconds=60) == 130
        assert run.said.rstrip().endswith(
            "Interrupted. What is committed stays; run the same command again to carry on."
        )
        assert "SIGTERM received" not in run.said  # by Ray's handler, with a stack
        (manifest,) = night.manifests()
        assert manifest["status"] == "interrupted"
        assert manifest["shards_committed"] == len(night.results)
        assert night.count() == (20 * len(night.results),) * 2
        night.finish()
        assert night.verify() == 320

    def test_by_ray_job_stop_likewise(self, tmp_path: Path, tiny_model: Path) -> None:
        night = Night.make(tmp_path, tiny_model, shards=40)  # `ray job stop` takes its time
        with ray_head(tmp_path) as head:
            job = head.start(*night.command(), working_dir=ROOT)
            deadline = time.monotonic() + 120
            while len(night.results) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            stopped = head.stop(job)
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr
            deadline = time.monotonic() + 60
            while night.manifests()[0]["status"] == "running":
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert night.manifests()[0]["status"] == "interrupted"
            assert "run the same command again to carry on" in head.log(job)
        night.finish()
        assert night.verify() == 800
