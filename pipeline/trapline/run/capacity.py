"""The cluster that a run works on: joined or started, asked for room, and watched as it grows and shrinks.

Ray does not say what a cluster may grow to, and its autoscaler starts the nodes that waiting tasks need. So work
begins with probe tasks, which do nothing but need what a worker needs, as many as there is work for. Once some of each
kind have found room, the workers start; Ray Data asks for more nodes of the kinds that it finds busy.
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

# Cores that a worker takes of a node. Not the same: Ray would fuse equals into one actor that decodes and predicts in
# turn.
DECODE_CPUS = 1.0
PREDICT_CPUS = 0.9

_NODE, _GROUP = "ray.io/node-id", "ray.io/node-group"

# A node that has less to do than this is not worth its start: five minutes' work of a core that decodes 80 photographs
# a second of 0.7 MB, of a small GPU (an L4 predicts at most 480 a second), and of a core that does both.
_WORTH_A_CORE = {"cuda": 16e9, "cpu": 5e8}
_WORTH_A_GPU = 100e9
_MOST_PROBES = 1000
# Nodes that were asked for together come together; this long, in seconds, the first of them wait for the others.
_STRAGGLERS = 60.0
# Seconds from look to look, and from note to note.
_LOOK_EVERY = 2.0
_SAY_EVERY = 30.0
# The slowest image may take as long, in seconds.
_SILENCE = 120.0


@dataclass(frozen=True)
class WorkerPlan:
    """The workers of a run, and where they are.

    Attributes:
        now: those that there is room for.
        most: those that there may be once the cluster has grown.
        predictor_gpus: the share of a GPU that a predictor takes; 0 where it computes on cores.
        decode_where: Ray's label selector of the nodes that decode; empty for any.
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
            note: receives, every half a minute, what is waited for.

        Returns:
            Whether there is.

        Raises:
            UsageError: this cluster has no such node and starts none.
        """
        if not on_shared_cluster():
            for kind in self._needs:
                self._refuse_impossible(kind, waiting=1)
            return True
        probes = {_probe(kind, needs): kind for kind, needs in self._needs.items() for _ in range(self._wanted(kind))}
        waiting, found = list(probes), set[str]()
        started, said = monotonic(), 0.0
        # Those that find no room go on asking for it until this process ends. To cancel a task that completes at that
        # moment can abort the process (Ray 2.60).
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
            # Where enough others decode, the cores beside a GPU are left to feed it.
            if cores - beside_gpus >= beside_gpus:
                decode = cores - beside_gpus
                decode_where = _all_but(with_gpu)
        now = WorkerCounts(self._config.decode_workers or max(1, decode), self._config.predict_workers or predict)
        most = now
        # On cores alone the two would take them from each other.
        if on_shared_cluster() and self._device == "cuda":
            most = WorkerCounts(max(now.decode, self._wanted("decode")), max(now.predict, self._wanted("predict")))
        return WorkerPlan(now, most, self._gpus, decode_where)

    def _wanted(self, kind: str) -> int:
        """Workers that have something to do each."""
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
        # Some of them are also where there are more probe tasks than the cluster may have workers.
        impossible = bundles.count(needs) >= waiting
        if impossible or not state.autoscaler_state_version:
            raise UsageError(
                f"device {self._device}: no node of this cluster, nor any that it may start, has what a {kind} worker "
                f"takes ({_named(needs)}); add such nodes" + (", or choose --device cpu" if self._gpus else "")
            )


class CapacityMonitor(Periodic):
    """Count the workers that there is room for, and note when nothing comes back, as long as the context lasts.

    Args:
        cluster: that is watched.
        progress: records workers that come and go.
        note: receives that nothing has come back for some time, and what nodes are awaited.
        every: seconds from look to look.
        silence: seconds without any result after which a note is due.
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
        with suppress(ray.exceptions.RayError):  # Ray's own books, when they do not answer for once
            self._look_once()

    def _look_once(self) -> None:
        self._progress.workers.set_workers(self._cluster.worker_plan().now)
        if self._progress.steps != self._seen:
            self._seen, self._since = self._progress.steps, monotonic()
        elif (silence := monotonic() - self._since) >= self._silence:
            self._note(f"nothing has come back for {_duration(silence)}; {_nodes_to_come()}")


def device(config: RunConfig) -> Literal["cpu", "cuda"]:
    """Return where inference runs; `auto` is a GPU where there is one now."""
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
    """Return a selector of all other nodes, outside of the same groups, too, of which more may come."""
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
    """Return the state of Ray's autoscaler (`AutoscalingState`); empty where it has no way to start nodes."""
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
