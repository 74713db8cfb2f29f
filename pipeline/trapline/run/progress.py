"""The running totals of a run: its plan, the states of its shards, its tallies, and how busy its workers are."""

import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from threading import RLock
from time import monotonic
from typing import Any

from trapline import __version__
from trapline.detections.index import Index
from trapline.errors import redacted
from trapline.results.footer import Footer
from trapline.run.manifest import Manifest, Status
from trapline.run.messages import Failure, PredictedChunk
from trapline.run.plan import RunPlan
from trapline.run.shard_states import ShardStates
from trapline.run.tallies import Tallies, by_status
from trapline.run.worker_time import WorkerTime
from trapline.sources.shards import Shard

# `max_failed_fraction` counts from this many images on: before, one bad memory card would end the night.
_BUDGET_FROM_IMAGES = 100
# No estimate of the remaining time before this many seconds and this share of the work: a run of 79 s once announced
# 34 minutes.
_ESTIMATE_AFTER_SECONDS = 30.0
_ESTIMATE_FROM_FRACTION = 0.02


class Progress:
    """The running totals. One thread records; another may ask for a manifest at any time.

    Args:
        plan: of the run.

    Attributes:
        shards: which shards are done and which have failed.
        tallies: counts of images and rows.
        workers: how busy the workers are.
    """

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.shards = ShardStates(plan.todo)
        self.tallies = Tallies(plan)
        self.workers = WorkerTime()
        self._first: tuple[float, int] | None = None
        self._stopped = False
        self._lock = RLock()

    def record_index(self, index: Index) -> None:
        """Record what became of a detector's output."""
        with self._lock:
            self.tallies.record_index(index)

    def record_chunk(self, chunk: PredictedChunk) -> None:
        """Record a chunk that came back from prediction."""
        with self._lock:
            self.tallies.record_chunk(chunk)
            self.workers.record(chunk.seconds)
            self.shards.advance(chunk.shard.uri, chunk.shard.size, chunk.encoded_bytes)
            if self._first is None:
                self._first = monotonic(), self.shards.bytes_done

    def commit(self, footer: Footer) -> None:
        """Record that a shard's result was written."""
        with self._lock:
            # Ray may deliver a shard twice, and a task that it repeats may find the file of its first try.
            if not self.shards.has_result(footer.uri):
                self.tallies.commit(footer)
                self.shards.commit(footer)

    def done_by_another(self, footer: Footer) -> None:
        """Record that another run has written a shard's result since this one began."""
        with self._lock:
            if not self.shards.has_result(footer.uri):
                self.tallies.done_by_another(footer)
                self.shards.done_by_another(footer)

    def fail(self, failure: Failure) -> None:
        """Record that a shard could not be read or written in this pass."""
        with self._lock:
            self.shards.fail(failure)

    def stop(self) -> None:
        """Record that a worker began no further shard, because `stop_at` had come by its clock."""
        self._stopped = True

    def retry(self, shards: Iterable[Shard]) -> None:
        """Record that shards which failed are read again."""
        with self._lock:
            self.shards.retry(shards)

    @property
    def images_per_second(self) -> float:
        """Images a second so far."""
        return self.tallies.images_seen / max(self.workers.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds left, by the rate since the first chunk; None while that is too uncertain."""
        if self._first is None:
            return None
        since, bytes_then = self._first
        seconds, done = monotonic() - since, self.shards.bytes_done - bytes_then
        if seconds < _ESTIMATE_AFTER_SECONDS or self.shards.fraction_done < _ESTIMATE_FROM_FRACTION or not done:
            return None
        return seconds * (self.plan.todo_bytes - self.shards.bytes_done) / done

    @property
    def over_budget(self) -> bool:
        """Whether more images failed than `max_failed_fraction` allows."""
        enough = self.tallies.images_seen >= _BUDGET_FROM_IMAGES or self.shards.unfinished <= 0
        allowed = self.plan.config.max_failed_fraction * self.tallies.images_seen
        return enough and self.tallies.failed_seen > allowed

    @property
    def out_of_time(self) -> bool:
        """Whether `stop_at` has come, by the clock of this machine or of a worker, with shards left to begin."""
        return (self._stopped or self.plan.deadline_passed) and self.shards.unfinished > 0

    @property
    def steps(self) -> tuple[int, int, int]:
        """A value that changes with everything that comes back."""
        return self.tallies.images_seen, self.shards.settled, len(self.shards.failures)

    @property
    def verdict(self) -> Status:
        """How the run ended."""
        if self.over_budget:
            return "over_budget"
        if self.shards.failures or self.shards.broken:
            return "incomplete"
        return "stopped" if self.out_of_time else "complete"

    def manifest(self, status: Status, ended_by: str | None = None) -> Manifest:
        """Return the manifest as of now."""
        with self._lock:
            return self._manifest(status, ended_by)

    def _manifest(self, status: Status, ended_by: str | None) -> Manifest:
        plan, shards, tallies, workers = self.plan, self.shards, self.tallies, self.workers
        done, found = len(plan.already_done) + len(shards.done_elsewhere), len(plan.found.shards)
        ratio = workers.decoders_per_predictor
        return Manifest(
            run_id=plan.run_id,
            status=status,
            ended_by=ended_by,
            started_at=plan.started_at,
            seconds=round(workers.seconds, 3),
            config={name: _redacted(value) for name, value in plan.config.model_dump(mode="json").items()},
            fingerprint={"digest": plan.fingerprint.digest, **plan.fingerprint.facts},
            versions={
                "python": platform.python_version(),
                "trapline": __version__,
                **{name: version(name) for name in ("torch", "torchvision", "pillow", "pyarrow", "ray")},
            },
            shards_in=found,
            shards_passed_over=plan.found.excluded,
            shards_committed=len(shards.committed),
            shards_already_done=done,
            shards_failed={uri: failure.reason for uri, failure in shards.failures.items()},
            shards_left=found - done - len(shards.committed) - len(shards.failures),
            shards_todo=len(plan.todo),
            bytes_todo=plan.todo_bytes,
            results_with_other_fingerprint=plan.results_with_other_fingerprint,
            shards_broken=dict(shards.broken),
            images=by_status(tallies.images),
            crops=tallies.crops,
            clips=tallies.clips,
            frames=tallies.frames,
            detections=tallies.detections,
            images_carried_over=tallies.carried_over,
            images_already_done=by_status(tallies.images_already_done),
            reasons=dict(tallies.reasons.most_common()),
            species=dict(tallies.species.most_common()),
            ignored=dict(tallies.ignored.most_common()),
            step_seconds={step: round(seconds, 3) for step, seconds in workers.step_seconds.items()},
            start_up_seconds=round(workers.start_up_seconds, 3) if workers.counts else 0.0,
            busy={kind: round(share, 3) for kind, share in workers.busy.items()},
            workers=asdict(workers.counts) if workers.counts else {},
            decoders_per_predictor=ratio and round(ratio, 3),
            bound_by=workers.bound_by if tallies.images_seen else "nothing",
            images_per_second=round(self.images_per_second, 2),
        )


def _redacted(value: Any) -> Any:
    """Return an option as the manifest shows it, without secrets of URLs."""
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    return redacted(value) if isinstance(value, str) else value
