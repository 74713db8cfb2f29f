"""The cluster of a run: wait until it has room for the workers, plan them, and watch as it grows and shrinks.

Ray does not say how far a cluster can grow, and its autoscaler starts the nodes that waiting tasks need. So a run
begins with probe tasks: they do nothing, but request what a worker needs, and there are as many as there is work for.
Once some of each kind have found room, the workers start; Ray Data asks for more nodes of the kinds that are busy.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from time import monotonic
from typing import Any, Literal

import ray
import torch
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated import autoscaler_pb2

from trapline.config import RunConfig
from trapline.errors import UsageError
from trapline.ray_session import connect, on_shared_cluster
from trapline.run.periodic import Periodic
from trapline.run.plan import RunPlan
from trapline.run.progress import Progress
from trapline.run.worker_time import WorkerCounts
from trapline.run.workers import CPU_THREADS

# Cores that a worker takes. They differ because Ray fuses equals into one actor that decodes and predicts in turn.
DECODE_CPUS = 1.0
PREDICT_CPUS = 0.9

_NODE, _GROUP = "ray.io/node-id", "ray.io/node-group"

# Bytes of work below which starting another node does not pay: five minutes of a core that decodes 80 photographs a
# second of 0.7 MB, of a small GPU (an L4 predicts at most 480 a second), and of a core that does both.
_WORTH_A_CORE = {"cuda": 16e9, "cpu": 5e8}
_WORTH_A_GPU = 100e9
_MOST_PROBES = 1000
# Seconds that the first nodes wait for others that were requested at the same time.
_STRAGGLERS = 60.0
# Seconds between looks, and between notes.
_LOOK_EVERY = 2.0
_SAY_EVERY = 30.0
# Seconds without a result before a note: the slowest image may take this long.
_SILENCE = 120.0


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a run, and where they are.

    Attributes:
        now: the workers that there is room for.
        most: the most workers that there may be once the cluster has grown.
        predictor_gpus: the share of a GPU that a predictor takes; 0 if it computes on a CPU.
        decode_where: Ray's label selector for the nodes that decode; empty for any.
    """

    now: WorkerCounts
    most: WorkerCounts
    predictor_gpus: float
    decode_where: dict[str, str]


class Cluster:
    """What a run needs of the cluster.

    Args:
        device: where inference runs.
        plan: of the run; its `todo` says how much there is to do.
    """

    def __init__(self, device: Literal["cpu", "cuda"], plan: RunPlan) -> None:
        self._device: Literal["cpu", "cuda"] = device
        self._plan = plan
        self._config = plan.config
        self._gpus = plan.config.gpus_per_actor if device == "cuda" else 0.0
        self._needs = {"decode": {"CPU": DECODE_CPUS}, "predict": {"CPU": PREDICT_CPUS, "GPU": self._gpus}}

    def wait_for_capacity(self, note: Callable[[str], None]) -> bool:
        """Wait until there is room for a worker of each kind; until `stop_at` at most.

        Args:
            note: receives every half minute what the run is waiting for.

        Returns:
            Whether there is room.

        Raises:
            UsageError: this cluster has no node for such a worker, and can start none.
        """
        if not on_shared_cluster():
            for kind in self._needs:
                self._refuse_impossible(kind, waiting=1)
            return True
        probes = {_probe(kind, needs): kind for kind, needs in self._needs.items() for _ in range(self._wanted(kind))}
        waiting, found = list(probes), set[str]()
        started, said = monotonic(), 0.0
        # Probes without room are left waiting until this process ends: cancelling a task just as it completes can abort
        # the process (Ray 2.60).
        while waiting and not self._plan.deadline_passed:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_LOOK_EVERY)
            found |= {probes[probe] for probe in done}
            seconds = monotonic() - started
            missing = self._needs.keys() - found
            if not missing and seconds > _STRAGGLERS:
                break
            for kind in missing:
                self._refuse_impossible(kind, sum(probes[probe] == kind for probe in waiting))
            if missing and seconds - said >= _SAY_EVERY:
                said = seconds
                lacking = " and ".join(f"a {kind} worker ({_named(self._needs[kind])})" for kind in sorted(missing))
                note(f"waiting for {_duration(seconds)}: no node has room for {lacking}; {_nodes_to_come()}")
        return found == self._needs.keys()

    def worker_plan(self) -> WorkerPlan:
        """Return the workers that there is room for now."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        with_gpu = [node for node in nodes if _amount(node, "GPU")]
        cores, beside_gpus = (sum(int(_amount(node, "CPU")) for node in some) for some in (nodes, with_gpu))
        decode_where = {}
        if self._device == "cpu":
            predict = max(1, cores // CPU_THREADS)
            decode = cores - predict
        else:
            predict = max(1, sum(int(_amount(node, "GPU") / self._gpus) for node in with_gpu))
            decode = cores - predict
            # If the other nodes have enough cores to decode, the cores beside a GPU are left to feed it.
            if cores - beside_gpus >= beside_gpus:
                decode = cores - beside_gpus
                decode_where = _all_but(with_gpu)
        now = WorkerCounts(self._config.decode_workers or max(1, decode), self._config.predict_workers or predict)
        most = now
        # Not without GPUs: decoders and predictors would take each other's cores.
        if on_shared_cluster() and self._device == "cuda":
            most = WorkerCounts(max(now.decode, self._wanted("decode")), max(now.predict, self._wanted("predict")))
        return WorkerPlan(now, most, self._gpus, decode_where)

    def _wanted(self, kind: str) -> int:
        """Return the number of workers of a kind that the work is enough for."""
        if asked := self._config.decode_workers if kind == "decode" else self._config.predict_workers:
            return asked
        if kind == "predict" and self._device == "cpu":
            return 1
        worth = _WORTH_A_CORE[self._device] if kind == "decode" else _WORTH_A_GPU / self._gpus
        return max(1, min(ceil(self._plan.todo_bytes / worth), len(self._plan.todo), _MOST_PROBES))

    def _refuse_impossible(self, kind: str, waiting: int) -> None:
        needs = {name: amount for name, amount in self._needs[kind].items() if amount}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if any(all(_amount(node, kind) >= amount for kind, amount in needs.items()) for node in nodes):
            return  # it is in use
        state = _autoscaler()
        bundles = [dict(request.resources_bundle) for request in state.infeasible_resource_requests]
        # A cluster with a maximum size reports some of the probes as infeasible, too, but not all that are waiting.
        impossible = bundles.count(needs) >= waiting
        if impossible or not state.autoscaler_state_version:
            raise UsageError(
                f"device {self._device}: no node of this cluster, nor any that it may start, has what a {kind} worker "
                f"takes ({_named(needs)}); add such nodes" + (", or choose --device cpu" if self._gpus else "")
            )


class CapacityMonitor(Periodic):
    """Count the workers that there is room for, and note when no results come, as long as the context lasts.

    Args:
        cluster: the cluster to watch.
        progress: records the number of workers.
        note: receives how long no result has come, and which nodes are on their way.
        every: seconds between looks.
        silence: seconds without a result after which a note is due.
    """

    def __init__(
        self,
        cluster: Cluster,
        progress: Progress,
        note: Callable[[str], None],
        every: float = _SAY_EVERY,
        silence: float = _SILENCE,
    ) -> None:
        super().__init__(self._look, every)
        self._silence = silence
        self._cluster = cluster
        self._progress = progress
        self._note = note
        self._seen = progress.steps
        self._since = monotonic()

    def _look(self) -> None:
        with suppress(ray.exceptions.RayError):  # Ray's head may fail to answer once
            self._look_once()

    def _look_once(self) -> None:
        self._progress.workers.set_workers(self._cluster.worker_plan().now)
        if self._progress.steps != self._seen:
            self._seen, self._since = self._progress.steps, monotonic()
        elif (silence := monotonic() - self._since) >= self._silence:
            self._note(f"nothing has come back for {_duration(silence)}; {_nodes_to_come()}")


def device(config: RunConfig) -> Literal["cpu", "cuda"]:
    """Return where inference runs; `auto` means a GPU if there is one now."""
    if config.device != "auto":
        return config.device
    if not on_shared_cluster():
        return "cuda" if torch.cuda.is_available() else "cpu"
    connect()
    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def ports() -> dict[str, tuple[str, int]]:
    """Return host and port of the Ray processes that this one depends on, by name; see `RayWatch`."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {"GCS": (host, int(port)), "raylet": (here["NodeManagerAddress"], here["NodeManagerPort"])}


def _amount(node: Mapping[str, Any], kind: str) -> float:
    return float(node["Resources"].get(kind, 0))


def _all_but(nodes: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return a label selector of all nodes that are not among these, nor in their node groups, which may grow."""
    selector = {}
    for label in _NODE, _GROUP:
        if values := {node["Labels"][label] for node in nodes if node["Labels"].get(label)}:
            selector[label] = f"!in({','.join(sorted(values))})"
    return selector


def _probe(kind: str, needs: dict[str, float]) -> "ray.ObjectRef[None]":
    options = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU") or None, "name": f"room for a {kind} worker"}
    task: ray.ObjectRef[None] = ray.remote(_nothing).options(**options).remote()
    return task


def _nothing() -> None:
    pass


def _autoscaler() -> Any:
    """Return the state of Ray's autoscaler (`AutoscalingState`); empty if it cannot start nodes."""
    reply = autoscaler_pb2.GetClusterStatusReply()  # type: ignore[attr-defined]
    reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=10))
    return reply.autoscaling_state


def _nodes_to_come() -> str:
    state = _autoscaler()
    counts: Counter[str] = Counter()
    for request in state.pending_instance_requests:
        counts[f"{request.ray_node_type_name} asked for"] += request.count
    for node in state.pending_instances:
        counts[f"{node.ray_node_type_name} starting"] += 1
    for request in state.failed_instance_requests:
        why = f" ({request.reason})" if request.reason else ""
        counts[f"{request.ray_node_type_name} refused{why}"] += request.count
    coming = ", ".join(f"{count} {what}" for what, count in counts.items())
    there = {kind: amount for kind, amount in ray.cluster_resources().items() if kind in ("CPU", "GPU")}
    return f"nodes to come: {coming or 'none'}; there are {_named(there) or 'none'}"


def _named(needs: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
