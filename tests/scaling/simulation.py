"""What a run costs at a size that no test can have: measured at small ones with stand-ins, fitted, extrapolated.

Costs are taken as linear in shards, chunks and images, and the largest run tells whether they are: it is predicted from
the others first.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np
from rich.console import Console

from jobs.benchmark.growth import write_archive
from jobs.benchmark.model import SIZE, random_model
from trapline.errors import UsageError
from trapline.model import checkpoint

# With the reference model's classes and embedding; stand-ins never ask its network.
_VARIANT = "hiera_abswin_tiny"
BATCH = 64  # images in a chunk
# Of a photograph nothing is used but its name and its length.
_STUB = bytes(1000)
# Two readers keep two cores busy; what the driver does for an image does not depend on their number.
_READERS = 2
# Shards per decode worker, and images in each: half a minute at the rates of real decoding.
_SHARDS_A_WORKER, _IMAGES_A_SHARD = 10, 4 * BATCH


@dataclass(frozen=True)
class Size:
    """How much there is to do.

    Attributes:
        shards: how many.
        images: in each of them.
        batch_size: images in a chunk, at most.
    """

    shards: int
    images: int
    batch_size: int = BATCH

    @classmethod
    def parse(cls, text: str, batch_size: int = BATCH) -> "Size":
        """Out of SHARDSxIMAGES.

        Raises:
            UsageError: it is none.
        """
        shards, by, images = text.partition("x")
        if not (by and shards.isdecimal() and images.isdecimal() and int(shards) and int(images)):
            raise UsageError(f"--sizes {text}: is no size; write SHARDSxIMAGES, such as 100x64")
        return cls(int(shards), int(images), batch_size)

    @property
    def total(self) -> int:
        """Images in all."""
        return self.shards * self.images

    @property
    def chunks(self) -> int:
        """In all."""
        return self.shards * max(1, ceil(self.images / self.batch_size))

    @property
    def terms(self) -> tuple[int, int, int, int]:
        """What costs are linear in."""
        return 1, self.shards, self.chunks, self.total


TARGETS = Size(100_000, 1_000), Size(1_000_000, 1_000)


@dataclass(frozen=True)
class Scenario:
    """What a simulated run does.

    Attributes:
        archive: of tars.
        output: where results go; nothing is there yet.
        model: a checkpoint, for its classes and its size in pixels.
        decode_workers: so many tasks at a time, each on a core that need not be there.
        decode_seconds: that an image takes its decode worker.
        predict_seconds: that an image takes the one predictor.
        batch_size: images in a chunk.
    """

    archive: str
    output: str
    model: str
    decode_workers: int
    decode_seconds: float = 0.0
    predict_seconds: float = 0.0
    batch_size: int = BATCH


@dataclass(frozen=True)
class Seen:
    """What a simulated run took.

    Attributes:
        shards: committed.
        images: in their rows.
        seconds: from the first shard handed out to the last commit, the start of the workers included.
        images_per_second: once all workers were at work.
        cpu: seconds of the driver, by its threads: `flow` (chunks are taken in and accounted for), `ray_data` (its
            executor), `writers` (files are encoded and put), `rest` (Ray's own, in C++).
        driver_bytes: most that it held for itself.
        driver_bytes_a_chunk: that it grew by with each chunk, meanwhile; tells little where chunks are few.
        store_bytes: most that lay in the object store.
        busy: share of the time that workers of each kind were.
        bound_by: what the run waited for.
        output_bytes: of all result files.
        manifest_bytes: of the manifest.
        ledger_bytes: of the cache of footers that the next run writes.
    """

    shards: int
    images: int
    seconds: float
    images_per_second: float
    cpu: dict[str, float]
    driver_bytes: int
    driver_bytes_a_chunk: float
    store_bytes: int
    busy: dict[str, float]
    bound_by: str
    output_bytes: int
    manifest_bytes: int
    ledger_bytes: int

    @property
    def driver_seconds(self) -> float:
        """CPU, of all its threads."""
        return sum(self.cpu.values())


COSTS: Mapping[str, Callable[[Seen], float]] = {
    "driver, CPU s": lambda seen: seen.driver_seconds,
    "of it its Python threads": lambda seen: seen.cpu["flow"] + seen.cpu["ray_data"],
    "of it writing files": lambda seen: seen.cpu["writers"],
    "results, MB": lambda seen: seen.output_bytes / 1e6,
    "ledger cache, MB": lambda seen: seen.ledger_bytes / 1e6,
}


@dataclass(frozen=True)
class Fit:
    """A cost, as a sum of what each thing costs.

    Attributes:
        fixed: once.
        shard: each.
        chunk: each.
        image: each.
        held_out_error: how much more, relatively, the largest run was predicted to cost from the others than it did.
    """

    fixed: float
    shard: float
    chunk: float
    image: float
    held_out_error: float

    def __call__(self, size: Size) -> float:
        """At some size."""
        return float(np.dot(size.terms, (self.fixed, self.shard, self.chunk, self.image)))


def fits(sizes: Sequence[Size], runs: Sequence[Seen]) -> dict[str, Fit]:
    """Each of `COSTS`, fitted to what runs took; none where there are too few runs to tell."""
    if len(runs) <= len(sizes[0].terms):
        return {}
    return {name: fit(sizes, list(map(cost, runs))) for name, cost in COSTS.items()}


def fit(sizes: Sequence[Size], costs: Sequence[float]) -> Fit:
    """Least squares of relative errors, and no cost below nothing.

    Args:
        sizes: the largest last; five or more, of different proportions.
        costs: what was measured there, positive.
    """
    expected = np.dot(sizes[-1].terms, _solved(sizes[:-1], costs[:-1]))
    return Fit(*_solved(sizes, costs), held_out_error=float(expected / costs[-1] - 1))


def _solved(sizes: Sequence[Size], costs: Sequence[float]) -> tuple[float, float, float, float]:
    from scipy.optimize import nnls  # of an extra, which the other benchmarks do without

    terms = np.array([size.terms for size in sizes], dtype=float) / np.array(costs)[:, None]
    # Millions beside ones: columns of one length, and coefficients scaled back.
    lengths = np.linalg.norm(terms, axis=0)
    solution, _ = nnls(terms / lengths, np.ones(len(costs)))
    fixed, shard, chunk, image = map(float, solution / lengths)
    return fixed, shard, chunk, image


def measure_sizes(console: Console, scratch: Path, sizes: Sequence[Size]) -> list[Seen]:
    """Runs over archives of these sizes, as fast as this machine moves them.

    Args:
        console: shows what is going on.
        scratch: a folder for archives, the checkpoint and results.
        sizes: of the archives.

    Raises:
        UsageError: a run failed; with its last words.
    """
    return [_run(console, scratch, size, _READERS) for size in sizes]


def measure_workers(
    console: Console,
    scratch: Path,
    workers: Sequence[int],
    decode_rate: float,
    predict_rate: float,
) -> list[Seen]:
    """Runs with more and more decode workers, which sleep, and so need no core each.

    Args:
        console: shows what is going on.
        scratch: a folder for archives, the checkpoint and results.
        workers: how many.
        decode_rate: images/s of each.
        predict_rate: images/s of the one predictor.

    Raises:
        UsageError: a run failed; with its last words.
    """
    seconds = 1 / decode_rate, 1 / predict_rate
    sizes = [Size(count * _SHARDS_A_WORKER, _IMAGES_A_SHARD) for count in workers]
    return [_run(console, scratch, size, count, *seconds) for size, count in zip(sizes, workers, strict=True)]


def simulate(scenario: Scenario) -> Seen:
    """Run it, in a process of its own.

    Raises:
        UsageError: it failed; with its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.scaling.simulated_run", json.dumps(asdict(scenario))],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(f"simulated run: exit code {done.returncode}: {done.stderr[-500:]}")
    return Seen(**json.loads(done.stdout.splitlines()[-1]))


def _run(
    console: Console,
    scratch: Path,
    size: Size,
    decode_workers: int,
    decode_seconds: float = 0.0,
    predict_seconds: float = 0.0,
) -> Seen:
    model, results = scratch / f"{_VARIANT}_1.pt", scratch / "results"
    if not model.exists():
        checkpoint.save(random_model(_VARIANT, SIZE), model)
    with console.status(f"{size.shards:,} shards of {size.images:,} images, {decode_workers} decode workers"):
        tars = write_archive(scratch / "archive", [_STUB], size.total, size.images)
        scenario = Scenario(
            str(tars), str(results), str(model), decode_workers, decode_seconds, predict_seconds, size.batch_size
        )
        seen = simulate(scenario)
    shutil.rmtree(results)
    return seen
