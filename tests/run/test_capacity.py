"""A cluster that grows from a bare head, by Ray's own autoscaler; what ran where is read from Ray's state."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT
from tests.support.nights import Night
from tests.support.progress import Silent, chunk, run_progress
from tests.support.servers import RayHead, ray_head
from trapline.run.capacity import CapacityMonitor, Cluster
from trapline.run.worker_time import WorkerCounts

DECODE = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2}
GPU = {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1}
STAND_IN = (str(ROOT / "tests/support/gpu_stand_in.py"),)


@pytest.fixture
def night(tmp_path: Path, tiny_model: Path) -> Night:
    night = Night.make(tmp_path, tiny_model, shards=30, images=10)
    return replace(night, program=STAND_IN)


def on(head: RayHead) -> dict[str, str]:
    return {
        "RAY_ADDRESS": head.gcs_address,
        "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'pipeline'}",
    }


def kinds(head: RayHead) -> dict[str, str]:
    """What each node is, by its id, alive or not."""
    found = {}
    for node in head.nodes():
        resources: dict[str, Any] = node["resources_total"]
        kind = "gpu" if resources.get("GPU") else "decode" if resources.get("CPU") else "head"
        found[node["node_id"]] = kind
    return found


@pytest.mark.slow
def test_both_groups_grow_from_nothing_do_what_each_is_for_and_go(tmp_path: Path, night: Night) -> None:
    with ray_head(tmp_path, num_cpus=0, grows={"decode": DECODE, "gpu": GPU}) as head:
        night.finish("--device", "cuda", "--precision", "fp32", "--decode-workers", "6", env=on(head))
        where = kinds(head)
        assert sorted(where.values()) == ["decode", "decode", "gpu", "head"]
        ran: dict[str, set[str]] = {}
        for task in head.tasks():
            if task["node_id"]:
                ran.setdefault(task["name"], set()).add(where[task["node_id"]])
        decoded = {kind for name, nodes in ran.items() if "Reader" in name for kind in nodes}
        predicted = {kind for name, nodes in ran.items() if "OnCores" in name for kind in nodes}
        assert decoded == {"decode"}
        assert predicted == {"gpu"}
        until(lambda: all(node["state"] == "DEAD" or node["is_head_node"] for node in head.nodes()))
    assert night.verify() == 300


@pytest.mark.slow
def test_without_any_gpu_it_says_so_in_one_line(tmp_path: Path, night: Night) -> None:
    with (
        ray_head(tmp_path, num_cpus=0, grows={"decode": DECODE}) as head,
        night.running("--device", "cuda", env=on(head)) as run,
    ):
        assert run.wait(60) == 2
    assert run.said.splitlines()[-1] == (
        "trapline: device cuda: no node of this cluster, nor any that it may start, has what a predict worker takes "
        "(0.9 CPU, 1 GPU); add such nodes, or choose --device cpu"
    )


@pytest.mark.slow
def test_for_nodes_that_never_come_it_waits_until_stop_at_and_says_for_what(tmp_path: Path, night: Night) -> None:
    refused = GPU | {"resources": GPU["resources"] | {"object_store_memory": 1}}
    with ray_head(tmp_path, num_cpus=0, grows={"decode": DECODE, "gpu": refused}) as head:
        stop_at = (datetime.now(UTC) + timedelta(seconds=50)).isoformat()
        run = night.finish("--device", "cuda", "--decode-workers", "4", "--stop-at", stop_at, env=on(head))
    waiting = [line for line in run.said.splitlines() if line.startswith("waiting for 0:00:3")]
    assert len(waiting) == 1
    assert "no node has room for a predict worker (0.9 CPU, 1 GPU); nodes to come: " in waiting[0]
    assert "gpu refused" in waiting[0]
    (manifest,) = night.manifests()
    assert (manifest["status"], manifest["shards_left"]) == ("stopped", 30)
    assert f"Stopped by --stop-at {stop_at}: 30 shards left for the next night." in run.said


class TestOnThisMachine:
    def test_decoders_and_predictors_share_the_cores(self, ray_session: None) -> None:
        workers = Cluster("cpu", run_progress().plan).worker_plan()
        assert workers.now == workers.most == WorkerCounts(decode=1, predict=1)
        assert (workers.predictor_gpus, workers.decode_where) == (0, {})

    def test_what_was_asked_for_is_what_there_is(self, ray_session: None) -> None:
        run = run_progress(decode_workers=5, predict_workers=3)
        workers = Cluster("cpu", run.plan).worker_plan()
        assert workers.now == workers.most == WorkerCounts(decode=5, predict=3)

    def test_silence_is_remarked_on_and_ends_with_the_next_step(self, ray_session: None) -> None:
        run = run_progress()
        heard = Silent()
        cluster = Cluster("cpu", run.plan)
        with CapacityMonitor(cluster, run, heard.note, every=0.02, silence=0.5):
            until(lambda: heard.notes)
            before = len(heard.notes)
            run.record_chunk(chunk(run.plan.todo[0], ok=1))
            time.sleep(0.4)
            assert len(heard.notes) - before <= 1  # one may have been under way
        assert heard.notes[0] == "nothing has come back for 0:00:01; nodes to come: none; there are 2 CPU"
        assert run.workers.counts == WorkerCounts(1, 1)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
