"""How busy the workers of a run were, and what the run waited for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from time import monotonic


@dataclass(frozen=True)
class WorkerCounts:
    """Number of workers of each kind."""

    decode: int
    predict: int


class WorkerTime:
    """Seconds for which workers were available, and seconds for which they worked.

    Attributes:
        counts: the workers now; None before there are any.
        step_seconds: seconds worked so far, by step: "read", "decode", "predict".
    """

    def __init__(self) -> None:
        self.counts: WorkerCounts | None = None
        self.step_seconds: Counter[str] = Counter()
        self._started = self._counted_at = monotonic()
        self._first_chunk_at: float | None = None
        self._counted: Counter[str] = Counter()
        self._lock = Lock()

    def set_workers(self, counts: WorkerCounts) -> None:
        """Set the number of workers from now on; the first call starts the clock."""
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
        # With most of the time spent on start-up, how busy the workers were says nothing about their speed.
        if self.start_up_seconds > self.seconds / 2:
            return "start-up"
        if busy["predict"] >= busy["decode"]:
            return "predict"
        return "read" if self.step_seconds["read"] > self.step_seconds["decode"] else "decode"

    @property
    def _available_seconds(self) -> Counter[str]:
        """Seconds for which workers were available since the work began, summed by kind."""
        seconds = monotonic() - self._counted_at
        counts = asdict(self.counts) if self.counts else {}
        return self._counted + Counter({kind: count * seconds for kind, count in counts.items()})

    @property
    def _feeding(self) -> float:
        return self.step_seconds["read"] + self.step_seconds["decode"]
