"""Export the totals of a run to Prometheus: gauges `ray_trapline_…` at the metrics endpoint of each node of a cluster.

`docs/grafana.json` shows them. When a run has ended, they are gone from there; its manifest has them.
"""

from types import TracebackType

from ray.util.metrics import Gauge

from trapline.run.periodic import Periodic
from trapline.run.progress import Progress

# Seconds; Ray itself exports every ten.
_EVERY = 5.0


class Metrics(Periodic):
    """Set the gauges from a thread, as long as the context lasts; Ray must be connected.

    Each has a tag `run`, the run's id. All are totals since the run began, except `busy` and the shards left.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(self._set, _EVERY)
        self._progress = progress
        self._images = _gauge("images", "Rows committed, by status: ok, salvaged, failed", "status")
        self._reasons = _gauge("troubles", "Committed rows that are salvaged or failed, by kind of error", "reason")
        self._predicted = _gauge("images_predicted", "Images that came back from prediction, committed or not")
        self._bytes = _gauge("bytes", "Bytes of shards worked off")
        self._bytes_todo = _gauge("bytes_todo", "Bytes of shards that this run set out to classify")
        self._seconds = _gauge("worker_seconds", "Seconds that workers spent, by step: read, decode, predict", "step")
        self._shards = _gauge("shards", "Shards of this run, by state: committed, failed, left", "state")
        self._busy = _gauge(
            "busy", "Share of the time that workers are busy: decode, and predict (the device)", "worker"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._set()

    def _set(self) -> None:
        now = self._progress.manifest("running")
        self._predicted.set(self._progress.tallies.images_seen, {"run": now.run_id})
        self._bytes.set(self._progress.shards.bytes_done, {"run": now.run_id})
        self._bytes_todo.set(now.bytes_todo, {"run": now.run_id})
        shards = {"committed": now.shards_committed, "failed": len(now.shards_failed), "left": now.shards_left}
        for gauge, tag, values in (
            (self._images, "status", now.images),
            (self._reasons, "reason", now.reasons),
            (self._seconds, "step", now.step_seconds),
            (self._shards, "state", shards),
            (self._busy, "worker", now.busy),
        ):
            for name, value in values.items():
                gauge.set(value, {"run": now.run_id, tag: name})


def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(f"trapline_{name}", description, ("run", *tags))
