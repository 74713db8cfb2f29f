"""How busy the workers of a run were, and what the run waited for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from time import monotonic


@dataclass(frozen=True)
class WorkerCounts:
    """How many of each worker a run has."""

    decode: int
    predict: int


class WorkerTime:
    """Seconds that workers were there, and seconds that they worked.

    Attributes:
        counts: the workers now; None before there are some.
        step_seconds: worked so far, by step: "read", "decode", "predict".
    """

    def __init__(self) -> None:
        self.counts: WorkerCounts | None = None
        self.step_seconds: Counter[str] = Counter()
        self._started = self._counted_at = monotonic()
        self._first_chunk_at: float | None = None
        self._counted: Counter[str] = Counter()
        self._lock = Lock()

    def set_workers(self, counts: WorkerCounts) -> None:
        """Set the workers that there are from now on; the first time, the clock starts."""
        with self._lock:
            self._counted = self._available_seconds
            self._counted_at = monotonic()
            if self.counts is None:
                self._started = self._counted_at
            self.counts = counts

    def record(self, seconds: Mapping[str, float]) -> None:
        """Add the time that workers spent on a chunk, by step."""
        with self._lock:
            if self._first_chunk_at is None:
                self._first_chunk_at = monotonic()
            self.step_seconds.update(seconds)

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return monotonic() - self._started

    @property
    def start_up_seconds(self) -> float:
        """Seconds until the first chunk came back: processes start, import their modules and load the model."""
        return (monotonic() if self._first_chunk_at is None else self._first_chunk_at) - self._started

    @property
    def busy(self) -> dict[str, float]:
        """Share of the time that the workers of each kind worked."""
        if not self.counts:
            return {}
        with self._lock:
            available = self._available_seconds
        worked = {"decode": self._feeding, "predict": self.step_seconds["predict"]}
        return {kind: seconds / max(available[kind], 1e-9) for kind, seconds in worked.items()}

    @property
    def decoders_per_predictor(self) -> float | None:
        """How many decode workers keep one predict worker busy; see `Manifest`."""
        predicting = self.step_seconds["predict"]
        return self._feeding / predicting if predicting else None

    @property
    def bound_by(self) -> str:
        """What the run waited for: its own start, the store, the cores that decode, or the device."""
        busy = self.busy
        if not self.step_seconds or not busy:
            return "nothing"
        # Workers that had not started yet waited for nothing else; their share of the time says nothing of their speed.
        if self.start_up_seconds > self.seconds / 2:
            return "start-up"
        if busy["predict"] >= busy["decode"]:
            return "predict"
        return "read" if self.step_seconds["read"] > self.step_seconds["decode"] else "decode"

    @property
    def _available_seconds(self) -> Counter[str]:
        """Seconds that workers were there since the work began, those of a kind added up."""
        seconds = monotonic() - self._counted_at
        counts = asdict(self.counts) if self.counts else {}
        return self._counted + Counter({kind: count * seconds for kind, count in counts.items()})

    @property
    def _feeding(self) -> float:
        return self.step_seconds["read"] + self.step_seconds["decode"]
