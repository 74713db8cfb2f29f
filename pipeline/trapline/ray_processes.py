"""Leave out the processes of Ray that a command on one machine does not use.

They take 4.7 of the 15 s of a core that a small run takes besides its images. Ray has no options for this, so what is
replaced here is not its public interface (tried with 2.60).
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

# Reads its standard input, a pipe that the raylet holds, so it ends when the raylet does.
_IDLE = subprocess.list2cmdline([sys.executable, "-IS", "-c", "open(0).read()"])
_AGENTS = ("dashboard_agent", "runtime_env_agent")
# As Ray's agents say it themselves: not in use.
_NO_PORT = -1


@contextmanager
def one_at_a_time(starting: Lock) -> Iterator[None]:
    """Hold a lock while Ray starts a process, as long as the context lasts."""
    import ray

    services: Any = ray._private.services
    original = services.start_ray_process

    def start_ray_process(*args: Any, **options: Any) -> Any:
        with starting:
            return original(*args, **options)

    services.start_ray_process = start_ray_process
    try:
        yield
    finally:
        services.start_ray_process = original


@contextmanager
def few_services() -> Iterator[None]:
    """Start Ray with its GCS and raylet alone, as long as the context lasts.

    Left out are the autoscaler, the dashboard, which `ray.init` waits for even if it is told not to include it, and the
    collector of the workers' output (1.7 s of a core); and the node's agents, for metrics and for runtime environments
    (1.2 s). The raylet insists on agents, and ends when one does, so idle processes stand in for them. Without them
    there is no runtime environment, not even that of `uv run`: workers run this Python, in this environment.
    """
    import ray

    node: Any = ray._private.node
    services: Any = ray._private.services
    worker: Any = ray._private.worker
    originals = node.Node, services.start_ray_process, worker._maybe_modify_runtime_env

    def start_ray_process(command: list[str], *args: Any, **options: Any) -> Any:
        for agent in _AGENTS:
            option = f"--{agent}_command="
            command = [f"{option}{_IDLE}" if argument.startswith(option) else argument for argument in command]
        return originals[1](command, *args, **options)

    class Node(ray._private.node.Node):
        def start_raylet(self, *args: Any, **options: Any) -> None:
            raylet: Any = ray._raylet
            folder: str = self.get_session_dir_path()  # type: ignore[no-untyped-call]
            for port in ("METRICS_AGENT", "METRICS_EXPORT", "DASHBOARD_AGENT_LISTEN", "RUNTIME_ENV_AGENT"):
                raylet.persist_port(folder, self.node_id, getattr(raylet, f"{port}_PORT_NAME"), _NO_PORT)
            super().start_raylet(*args, **options)

        def start_monitor(self) -> None: ...

        def start_api_server(self, **_: Any) -> None: ...

        def start_log_monitor(self) -> None: ...

    node.Node, services.start_ray_process = Node, start_ray_process
    worker._maybe_modify_runtime_env = lambda *_: None
    try:
        yield
    finally:
        node.Node, services.start_ray_process, worker._maybe_modify_runtime_env = originals


def few_actors() -> None:
    """Have Ray Data compute without two of its actors from now on, each of which imports it anew (1.8 s of a core).

    One collects statistics for the dashboard. The other divides a cluster among the datasets that are computed at a
    time, and asks for more nodes: here one dataset has one machine. A Ray Data that is built otherwise keeps them.
    """
    try:
        from ray.data._internal import stats as of_stats
        from ray.data._internal.cluster_autoscaler import AutoscalingCoordinator
        from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as of_autoscaler
    except ImportError:
        return
    import ray

    stats: Any = of_stats
    autoscaler: Any = of_autoscaler

    class WholeMachine(AutoscalingCoordinator):
        def __init__(self, **_: Any) -> None:
            self._resources = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

        def request_resources(self, *_: Any, **__: Any) -> None: ...

        def cancel_request(self) -> None: ...

        def get_reserved_resources(self) -> dict[str, dict[str, float]]:
            return self._resources

    if not WholeMachine.__abstractmethods__:
        stats.get_or_create_stats_actor = _Nobody
        autoscaler.DefaultAutoscalingCoordinator = WholeMachine


class _Nobody:
    """The handle of an actor whose methods do nothing."""

    def __getattr__(self, method: str) -> "_Nobody":
        return self

    def remote(self, *_: Any, **__: Any) -> None: ...
