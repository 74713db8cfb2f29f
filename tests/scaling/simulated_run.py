"""One run of the real flow with stand-ins for decoding and inference, as a process that watches itself.

`python -m tests.scaling.simulated_run SCENARIO`, which is JSON; prints what it saw, as JSON.
"""

import json
import logging
import os
import sys
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import process_time, thread_time

import ray

from jobs.benchmark.growth import held_alone
from tests.scaling.simulation import Scenario, Seen
from tests.scaling.stand_ins import SleepingReader, sleeping_actor
from trapline.config import RunConfig
from trapline.results import layout, ledger
from trapline.run.classify import classify
from trapline.run.periodic import Periodic
from trapline.run.progress import Progress
from trapline.run.ray_stream import WorkerClasses

# Seconds; a look costs some 5 ms.
_EVERY = 1.0
_SELF, _TICK = Path("/proc/self"), os.sysconf("SC_CLK_TCK")
# Names that threads have, by how they begin.
_THREADS = {
    "ThreadPoolExecutor": "writers",
    "StreamingExecutor": "ray_data",
    "ray-data": "ray_data",
    "iter": "ray_data",
    "Prefetcher": "ray_data",
}
# Rates are taken between these shares of the images: before, workers start; after, some have nothing left to do.
_FROM, _TO = 0.25, 0.9


class _Observer:
    """Notes when chunks came back, and what this process held then."""

    def __init__(self) -> None:
        self._came: list[tuple[float, int, int]] = []

    def __call__(self, progress: Progress) -> None:
        if progress.tallies.images_seen > (self._came[-1][1] if self._came else 0):
            self._came.append((progress.workers.seconds, progress.tallies.images_seen, held_alone(_SELF)))

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def steady(self) -> tuple[float, float]:
        """Images a second, and bytes that this process grew by with each chunk; over all where chunks are few."""
        most = self._came[-1][1]
        steady = [came for came in self._came if _FROM * most <= came[1] <= _TO * most]
        if len(steady) < 2:
            steady = [(0.0, 0, self._came[0][2]), *self._came]
        (start, before, held), (end, after, holds) = steady[0], steady[-1]
        return (after - before) / (end - start), (holds - held) / (len(steady) - 1)


class _Meter(Periodic):
    """Looks at this process and at Ray's object store, again and again."""

    def __init__(self) -> None:
        super().__init__(self._look, _EVERY)
        self._store = ray.cluster_resources()["object_store_memory"]
        self._ticks: dict[tuple[int, str], int] = {}
        self.driver_bytes = self.store_bytes = 0

    def _look(self) -> None:
        self.driver_bytes = max(self.driver_bytes, held_alone(_SELF))
        free = ray.available_resources().get("object_store_memory", 0)
        self.store_bytes = max(self.store_bytes, int(self._store - free))
        for thread in threading.enumerate():
            with suppress(OSError):  # it has ended
                stat = (_SELF / f"task/{thread.native_id}/stat").read_text().rpartition(") ")[2].split()
                self._ticks[thread.native_id or 0, thread.name] = int(stat[11]) + int(stat[12])

    def cpu(self, process: float, flow: float) -> dict[str, float]:
        """Seconds by kind of thread, out of those of the process and of its main thread."""
        seconds: dict[str, float] = defaultdict(float, flow=flow, ray_data=0.0, writers=0.0)
        for (_, name), ticks in self._ticks.items():
            kind = next((kind for start, kind in _THREADS.items() if name.startswith(start)), None)
            if kind:
                seconds[kind] += ticks / _TICK
        return {**seconds, "rest": process - sum(seconds.values())}


def run(scenario: Scenario) -> Seen:
    """Run it, in this process, on a Ray of its own."""
    config = RunConfig(
        inputs=(scenario.archive,), output=scenario.output, model=scenario.model, device="cuda",
        decode_workers=scenario.decode_workers, batch_size=scenario.batch_size,
    )  # fmt: skip
    # Cores and a GPU that need not be there: who sleeps takes none.
    ray.init(
        "local", num_cpus=scenario.decode_workers + 1, num_gpus=1, include_dashboard=False,
        logging_level=logging.ERROR, log_to_driver=False,
    )  # fmt: skip
    workers = WorkerClasses(
        reader=partial(SleepingReader, seconds=scenario.decode_seconds),
        predictor=sleeping_actor(scenario.predict_seconds),
    )
    observer, meter = _Observer(), _Meter()
    process, thread = process_time(), thread_time()
    with meter:
        manifest = classify(config, observer, workers=workers)
    cpu = meter.cpu(process_time() - process, thread_time() - thread)
    rate, growth = observer.steady()
    ledger.remember(scenario.output, ledger.survey(scenario.output))
    side = Path(scenario.output) / layout.SIDE_FOLDER
    return Seen(
        shards=manifest.shards_committed,
        images=sum(manifest.images.values()),
        seconds=manifest.seconds,
        images_per_second=rate,
        cpu=cpu,
        driver_bytes=meter.driver_bytes,
        driver_bytes_a_chunk=growth,
        store_bytes=meter.store_bytes,
        busy=manifest.busy,
        bound_by=manifest.bound_by,
        output_bytes=sum(path.stat().st_size for path in Path(scenario.output).rglob("*.parquet")),
        manifest_bytes=(side / "runs" / f"{manifest.run_id}.json").stat().st_size,
        ledger_bytes=(side / "ledger.cache").stat().st_size,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(run(Scenario(**json.loads(sys.argv[1]))))))
