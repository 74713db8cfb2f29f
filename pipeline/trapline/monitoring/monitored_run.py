"""A run with everything that monitors it: an observer, Prometheus, and the command of --notify."""

from collections.abc import Callable

from trapline.config import RunConfig
from trapline.monitoring.notify import EndOfRunHook
from trapline.monitoring.prometheus import Metrics
from trapline.run.classify import classify
from trapline.run.manifest import Manifest
from trapline.run.observer import RunObserver
from trapline.run.ray_stream import WorkerClasses
from trapline.run.ray_watch import exit_now


def classify_monitored(
    config: RunConfig,
    observer: RunObserver,
    workers: WorkerClasses | None = None,
    end_process: Callable[[str], None] = exit_now,
) -> Manifest:
    """Classify as `run.classify` does, export metrics, and run the command of --notify at the end."""
    with EndOfRunHook(None if config.dry_run else config.notify, observer.note) as hook:
        return classify(config, observer, on_end=hook, during=(Metrics,), workers=workers, end_process=end_process)
