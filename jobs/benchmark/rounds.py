"""Let contenders take turns, so that other work on the machine slows all of them; ratios are within a round."""

import gc
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from rich.console import Console

from trapline.cpu_count import usable_cpus


@dataclass(frozen=True)
class Spread:
    """A figure of several rounds: its median and its range."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Return the figure over the rounds."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}-{self.highest:.2f})"


@dataclass(frozen=True)
class Timing:
    """The time of one contender.

    Attributes:
        items: processed in each round.
        seconds: of each round.
    """

    items: int
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Return items per second, in the median."""
        return self.items / median(self.seconds)

    def times_as_fast_as(self, other: "Timing") -> Spread:
        """Return the ratio of the rates, round by round."""
        own, theirs = ([seconds / timing.items for seconds in timing.seconds] for timing in (self, other))
        return Spread.of([slow / fast for fast, slow in zip(own, theirs, strict=True)])


def take_turns(
    console: Console,
    contenders: Mapping[str, Callable[[], int]],
    rounds: int,
    warm: bool = True,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Run all contenders in turn, round after round.

    Args:
        console: shows which one is running.
        contenders: by name; each does its work once and returns the number of items.
        rounds: number of rounds that count.
        warm: whether a round that does not count comes first.
        clock: returns seconds; by default wall time.
    """
    clock = clock or perf_counter
    items = dict.fromkeys(contenders, 0)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.freeze()  # collections then look only at new objects, which saves 0.3 s each with torch and Ray loaded
    try:
        with console.status("") as status:
            for turn in range(-1 if warm else 0, rounds):
                for name, work in contenders.items():
                    status.update(f"{'warming up' if turn < 0 else f'round {turn + 1} of {rounds}'}: {name}")
                    gc.collect()
                    started = clock()
                    items[name] = work()
                    if turn >= 0:
                        seconds[name].append(clock() - started)
    finally:
        gc.unfreeze()
    return {name: Timing(items[name], seconds[name]) for name in contenders}


def machine() -> dict[str, str | int]:
    """Return a description of this machine."""
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": usable_cpus(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _cpu_info() -> list[str]:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            return file.read().splitlines()
    except OSError:
        return []
