"""Commits become an account of the run: running totals while it goes on, out of which its manifest is drawn up."""

import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from operator import attrgetter
from threading import RLock
from time import monotonic
from typing import Any
from uuid import uuid4

from trapline import __version__
from trapline.config import RunConfig
from trapline.detections.index import EXAMPLES, Index
from trapline.errors import redacted
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.ledger import Result
from trapline.results.rows import of_images
from trapline.run.manifest import Manifest, Status
from trapline.run.messages import Failure, PredictedChunk
from trapline.sources.shards import Discovery, Shard

_STATUSES = ("ok", "salvaged", "failed")

# Below this many images one bad card would end the night.
_BUDGET_FROM_IMAGES = 100


@dataclass(frozen=True)
class Slots:
    """How many of each worker a run has."""

    decode: int
    predict: int


@dataclass
class Account:
    """The running totals. One thread writes; another may ask for a manifest at any time.

    Attributes:
        config: of the run.
        fingerprint: of the run.
        found: what the inputs hold.
        already_done: results that stood before.
        todo: shards that this run is to classify.
        results_otherwise: see `Manifest`.
        stop_at: when to begin no further shard; None for never.
        slots: the workers, once there are some.
        detections: the index of what a detector found, once there is one.
    """

    config: RunConfig
    fingerprint: Fingerprint
    found: Discovery
    already_done: list[Result]
    todo: list[Shard]
    results_otherwise: int = 0
    stop_at: datetime | None = None
    slots: Slots | None = None
    detections: Index | None = None
    images_seen: int = 0
    failed_seen: int = 0
    carried_over: int = 0
    bytes_done: int = 0
    committed: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    images: Counter[str] = field(default_factory=Counter)
    crops: int = 0
    unmatched: int = 0
    examples: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    species: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    step_seconds: Counter[str] = field(default_factory=Counter)
    run_id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}")
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    started: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.ignored = Counter(self.found.ignored)
        self.todo_bytes = sum(shard.size for shard in self.todo)
        self.images_before = Counter({kind: sum(map(attrgetter(kind), self.already_done)) for kind in _STATUSES})
        self._bytes_done: Counter[str] = Counter()
        self._slot_seconds: Counter[str] = Counter()
        self._staffed = self.started
        self._lock = RLock()

    def staff(self, slots: Slots) -> None:
        """These are the workers from now on; the first time, the clock starts to run."""
        with self._lock:
            self._slot_seconds = self._had
            self._staffed = monotonic()
            if self.slots is None:
                self.started = self._staffed
            self.slots = slots

    @property
    def _had(self) -> Counter[str]:
        """Seconds, of all workers of a kind together, since the work began."""
        seconds = monotonic() - self._staffed
        slots = asdict(self.slots) if self.slots else {}
        return self._slot_seconds + Counter({kind: count * seconds for kind, count in slots.items()})

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return monotonic() - self.started

    @property
    def images_per_second(self) -> float:
        """So far."""
        return self.images_seen / max(self.seconds, 1e-9)

    @property
    def fraction_done(self) -> float:
        """By bytes, of what this run has to do."""
        return self.bytes_done / self.todo_bytes if self.todo_bytes else 1.0

    @property
    def settled(self) -> int:
        """Shards that have a result now and had none when this run began."""
        return len(self.committed) + len(self.elsewhere)

    def has_result(self, uri: str) -> bool:
        """Whether a shard of this run is done."""
        return uri in self.committed or uri in self.elsewhere

    @property
    def over_budget(self) -> bool:
        """Whether more images failed than `max_failed_fraction` allows."""
        ended = self.settled + len(self.failures) >= len(self.todo)
        enough = self.images_seen >= _BUDGET_FROM_IMAGES or ended
        return enough and self.failed_seen > self.config.max_failed_fraction * self.images_seen

    def saw(self, chunk: PredictedChunk) -> None:
        """A chunk came back from prediction."""
        with self._lock:
            images = of_images(chunk.rows)
            if chunk.carried:
                self.carried_over += len(images)
            else:
                self.images_seen += len(images)
                self.failed_seen += images.column("status").to_pylist().count("failed")
            for key in (chunk.end.unmatched if chunk.end else [])[: EXAMPLES - len(self.examples)]:
                self.examples.add(f"{chunk.shard.uri}#{key}")
            self.step_seconds.update(chunk.seconds)
            self._advance(chunk.shard.uri, chunk.shard.size, chunk.encoded_bytes)

    def commit(self, footer: Footer) -> None:
        """A shard's file stands."""
        if footer.uri in self.committed:  # Ray may deliver a shard twice; its file is the same
            return
        with self._lock:
            self.committed.add(footer.uri)
            self.images.update(footer.images)
            self.crops += footer.crops
            self.unmatched += footer.unmatched
            self.reasons.update(footer.reasons)
            self.species.update(footer.species)
            self.ignored.update(footer.ignored)
            if footer.broken:
                self.broken[footer.uri] = footer.broken
            self._settle(footer)

    def found_done(self, footer: Footer) -> None:
        """Another run has written a shard's file since this one began."""
        if self.has_result(footer.uri):
            return
        with self._lock:
            self.elsewhere.add(footer.uri)
            self.images_before.update(footer.images)
            self._settle(footer)

    def fail(self, failure: Failure) -> None:
        """A shard could not be read or written, this time."""
        with self._lock:
            self.failures[failure.shard.uri] = failure

    def try_again(self, shards: Iterable[Shard]) -> None:
        """What failed before is under way again."""
        with self._lock:
            for shard in shards:
                self.failures.pop(shard.uri, None)

    def _settle(self, footer: Footer) -> None:
        self.failures.pop(footer.uri, None)
        self._advance(footer.uri, footer.size, footer.size)

    def _advance(self, uri: str, size: int, by: int) -> None:
        # What is read again, or is more than its shard was when it was listed, is no progress.
        before = self._bytes_done[uri]
        self._bytes_done[uri] = min(size, before + by)
        self.bytes_done += self._bytes_done[uri] - before

    @property
    def busy(self) -> dict[str, float]:
        """Share of the time that the workers of each kind were at work."""
        if not self.slots:
            return {}
        with self._lock:
            had = self._had
        worked = {"decode": self._feeding, "predict": self.step_seconds["predict"]}
        return {kind: seconds / max(had[kind], 1e-9) for kind, seconds in worked.items()}

    @property
    def _feeding(self) -> float:
        return self.step_seconds["read"] + self.step_seconds["decode"]

    @property
    def decoders_per_predictor(self) -> float | None:
        """See `Manifest`."""
        predicting = self.step_seconds["predict"]
        return self._feeding / predicting if predicting else None

    @property
    def bound_by(self) -> str:
        """What the run waited for: the store, the cores that decode, or the device."""
        busy = self.busy
        if not self.images_seen or not busy:
            return "nothing"
        if busy["predict"] >= busy["decode"]:
            return "predict"
        return "read" if self.step_seconds["read"] > self.step_seconds["decode"] else "decode"

    @property
    def out_of_time(self) -> bool:
        """Whether `stop_at` has come, with shards left that did not get their turn."""
        return self.is_time and len(self.todo) > self.settled + len(self.failures)

    @property
    def is_time(self) -> bool:
        """Whether `stop_at` has come."""
        return bool(self.stop_at and datetime.now(UTC) >= self.stop_at)

    @property
    def steps(self) -> tuple[int, int, int]:
        """What has come about so far: another value means that something has."""
        return self.images_seen, self.settled, len(self.failures)

    @property
    def verdict(self) -> Status:
        """How the run ended."""
        if self.over_budget:
            return "over_budget"
        if self.failures:
            return "incomplete"
        return "stopped" if self.out_of_time else "complete"

    def manifest(self, status: Status, ended_by: str | None = None) -> Manifest:
        """The account as it stands."""
        with self._lock:
            return self._manifest(status, ended_by)

    @property
    def _detections(self) -> dict[str, Any]:
        if not self.detections:
            return {}
        counts = dict(self.detections.counts)
        counts["unmatched"] += self.unmatched
        examples = [*self.detections.examples, *sorted(self.examples)]
        return {**counts, "examples": examples[:EXAMPLES]}

    def _manifest(self, status: Status, ended_by: str | None) -> Manifest:
        done = len(self.already_done) + len(self.elsewhere)
        return Manifest(
            run_id=self.run_id,
            status=status,
            ended_by=ended_by,
            started_at=self.started_at,
            seconds=round(self.seconds, 3),
            config={name: _redacted(value) for name, value in self.config.model_dump(mode="json").items()},
            fingerprint={"digest": self.fingerprint.digest, **self.fingerprint.facts},
            versions={
                "python": platform.python_version(),
                "trapline": __version__,
                **{name: version(name) for name in ("torch", "torchvision", "pillow", "pyarrow", "ray")},
            },
            shards_in=len(self.found.shards),
            shards_passed_over=self.found.excluded,
            shards_committed=len(self.committed),
            shards_already_done=done,
            shards_failed={uri: failure.reason for uri, failure in self.failures.items()},
            shards_left=len(self.found.shards) - done - len(self.committed) - len(self.failures),
            shards_todo=len(self.todo),
            bytes_todo=self.todo_bytes,
            results_otherwise=self.results_otherwise,
            shards_broken=dict(self.broken),
            images=_by_status(self.images),
            crops=self.crops,
            detections=self._detections,
            images_carried_over=self.carried_over,
            images_already_done=_by_status(self.images_before),
            reasons=dict(self.reasons.most_common()),
            species=dict(self.species.most_common()),
            ignored=dict(self.ignored.most_common()),
            step_seconds={step: round(seconds, 3) for step, seconds in self.step_seconds.items()},
            busy={kind: round(share, 3) for kind, share in self.busy.items()},
            workers=asdict(self.slots) if self.slots else {},
            decoders_per_predictor=self.decoders_per_predictor and round(self.decoders_per_predictor, 3),
            bound_by=self.bound_by,
            images_per_second=round(self.images_per_second, 2),
        )


def _by_status(counts: Counter[str]) -> dict[str, int]:
    return {status: counts[status] for status in _STATUSES}


def _redacted(value: Any) -> Any:
    """Return an option as the manifest shows it, without secrets of URLs."""
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    return redacted(value) if isinstance(value, str) else value
