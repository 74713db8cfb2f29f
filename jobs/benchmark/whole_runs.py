"""Whole programs, from a folder of photographs to answers on disk: `trapline classify` and what one would use instead.

Each runs over a small and a large archive in turn. The difference between the two is what images cost once a program is
under way; what is left of the small run is what it costs to start.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from rich.console import Console

from jobs.benchmark.model import VARIANT
from jobs.benchmark.rounds import Spread, take_turns
from trapline.errors import UsageError
from trapline.model import checkpoint
from trapline.model.checkpoint import Model

_SHARDS = 4


@dataclass(frozen=True)
class Row:
    """One program.

    Attributes:
        name: of it.
        images_per_second: once under way, in the median.
        as_fast_as: trapline's rate to its own, round by round: median, range.
        start_seconds: before the first image and after the last, in the median.
    """

    name: str
    images_per_second: float
    as_fast_as: str
    start_seconds: float


def measure(
    console: Console, images: Sequence[bytes], model: Model, scratch: Path, small: int, large: int, rounds: int
) -> list[Row]:
    """Measure all programs, in turn.

    Args:
        console: shows what is going on.
        images: encoded JPEGs, repeated as often as the archives need.
        model: for all of them.
        scratch: a folder for archives, the checkpoint and the answers.
        small: images in the small archive.
        large: in the large one.
        rounds: over both, that count.

    Raises:
        UsageError: one of the programs failed; with its last words.
    """
    path = scratch / "models" / f"{VARIANT}_1.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(model, path)
    for count in (small, large):
        _archive(scratch, images, count)
    programs = _programs(path, scratch)
    contenders: dict[str, Callable[[], int]] = {}
    for name, command in programs.items():
        for count in (small, large):
            contenders[f"{name}, {count} images"] = _run(command(count), scratch, count)
    timings = take_turns(console, contenders, rounds, warm=False)

    def rates(name: str) -> list[float]:
        short, long = (timings[f"{name}, {count} images"].seconds for count in (small, large))
        return [(large - small) / (after - before) for before, after in zip(short, long, strict=True)]

    ours = rates("trapline")
    rows = []
    for name in programs:
        rate = rates(name)
        started = [
            seconds - small / each
            for seconds, each in zip(timings[f"{name}, {small} images"].seconds, rate, strict=True)
        ]
        ratio = Spread.of([mine / theirs for mine, theirs in zip(ours, rate, strict=True)])
        rows.append(Row(name, median(rate), str(ratio), median(started)))
    return rows


def _programs(model: Path, scratch: Path) -> dict[str, Callable[[int], list[str]]]:
    python, output = sys.executable, str(scratch / "out")
    peers = [python, "-m", "jobs.benchmark.peers"]
    classify = [python, "-m", "jobs.classify"]
    programs: dict[str, Callable[[int], list[str]]] = {
        "trapline": lambda count: [*classify, str(scratch / f"shards-{count}"), output, "--model", str(model)],
        "trapline, bf16": lambda count: [*programs["trapline"](count), "--precision", "bf16"],
        "bare torch loop": lambda count: [*peers, "bare", str(model), str(scratch / f"images-{count}"), output],
        "naive Ray Data": lambda count: [*peers, "naive", str(model), str(scratch / f"images-{count}"), output],
    }
    if find_spec("birder"):
        save = ["--save-output", "--save-embeddings", "--output-format", "parquet"]
        base = [python, "-m", "birder.scripts.predict", "-n", VARIANT, "-e", "1", *save]
        best = ["--amp", "--amp-dtype", "bfloat16", "--compile"]
        programs["birder-predict"] = lambda count: [*base, str(scratch / f"images-{count}")]
        programs["birder-predict, best flags"] = lambda count: [*base, *best, str(scratch / f"images-{count}")]
    return programs


def _run(command: Sequence[str], scratch: Path, count: int) -> Callable[[], int]:
    def run() -> int:
        for left in ("out", "out.npz", "results"):
            path = scratch / left
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (scratch / "results").mkdir()
        # birder looks for `models/` where it is started, Python for `jobs` on its path.
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-500:]}")
        return count

    return run


def _archive(scratch: Path, images: Sequence[bytes], count: int) -> None:
    """Write the same images, loose and in tars; a comment at the end makes each of them different."""
    folder, shards = scratch / f"images-{count}", scratch / f"shards-{count}"
    folder.mkdir()
    shards.mkdir()
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(images[number % len(images)] + str(number).encode())
    for shard in range(_SHARDS):
        with tarfile.open(shards / f"{shard}.tar", "w") as tar:
            for path in sorted(folder.iterdir())[shard::_SHARDS]:
                tar.add(path, path.name)
