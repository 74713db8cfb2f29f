"""Measure how time and memory of `trapline classify` grow with the archive, the number of shards and decode workers.

A small network on small pictures, with the reference model's classes and embedding, makes decoding the bottleneck, and
rows as large as usual. Each run is a process of its own, whose unshared memory is watched, by kind of process.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import perf_counter

from rich.console import Console

from jobs.benchmark.model import random_model
from trapline.errors import UsageError
from trapline.model import checkpoint

_VARIANT, _SIZE = "hiera_abswin_tiny", (64, 64)
_KINDS = {"ray::MapBatches(Reader)": "reader", "ray::MapWorker": "predictor"}
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Run:
    """One run, from the command to its exit.

    Attributes:
        images: in the archive.
        shards: in the archive.
        decode_workers: that it had.
        seconds: it took.
        peak: most bytes that a process held for itself, by kind: `driver`, `reader`, `predictor`.
    """

    images: int
    shards: int
    decode_workers: int
    seconds: float
    peak: dict[str, int] = field(default_factory=dict)


def measure(console: Console, images: Sequence[bytes], scratch: Path, base: int, times: Sequence[int]) -> list[Run]:
    """Run over archives of growing size; then over as many images in ten times as many shards; then with two readers.

    Args:
        console: shows what is going on.
        images: encoded, repeated as often as the archives need.
        scratch: a folder for archives, the checkpoint and results.
        base: images in a shard, and in the smallest archive, which is one shard; a multiple of ten.
        times: sizes of archives, in multiples of it.

    Raises:
        UsageError: a run failed; with its last words.
    """
    model = scratch / f"{_VARIANT}_1.pt"
    checkpoint.save(random_model(_VARIANT, _SIZE), model)
    runs = []

    def run(count: int, per_shard: int, decode_workers: int = 1) -> None:
        with console.status(f"{count} images, {per_shard} in a shard, {decode_workers} decode workers"):
            archive = write_archive(scratch / "archive", images, count, per_shard)
            options = ["--model", str(model), "--decode-workers", str(decode_workers)]
            seconds, peak = _watched([str(archive), str(scratch / "results"), *options])
            runs.append(Run(count, count // per_shard, decode_workers, seconds, peak))

    for multiple in times:
        run(base * multiple, base)
    middle = base * times[len(times) // 2]
    run(middle, base // 10)
    run(middle, base, decode_workers=2)
    return runs


def write_archive(folder: Path, images: Sequence[bytes], count: int, per_shard: int) -> Path:
    """Write one tar under many names (hard links): each is a shard like any other, and takes no space."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    first = folder / "00000.tar"
    with tarfile.open(first, "w") as tar:
        for number in range(per_shard):
            member = tarfile.TarInfo(f"{number:05}.jpg")
            member.size = len(images[number % len(images)])
            tar.addfile(member, BytesIO(images[number % len(images)]))
    for number in range(1, count // per_shard):
        (folder / f"{number:05}.tar").hardlink_to(first)
    return folder


def _watched(arguments: Sequence[str]) -> tuple[float, dict[str, int]]:
    shutil.rmtree(arguments[1], ignore_errors=True)
    peak: dict[str, int] = defaultdict(int)
    started = perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.classify", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while process.poll() is None:
            for kind, held in _held(process.pid):
                peak[kind] = max(peak[kind], held)
            time.sleep(0.2)
        seconds = perf_counter() - started
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise UsageError(f"trapline classify {' '.join(arguments)}: exit code {process.returncode}: {said[-500:]}")
    return seconds, dict(peak)


def _held(driver: int) -> list[tuple[str, int]]:
    """Return the bytes that each process of a run holds for itself now; not those that it shares."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            title = (folder / "cmdline").read_text(errors="replace")
            kind = next((kind for start, kind in _KINDS.items() if title.startswith(start)), None)
            if int(folder.name) == driver or (kind and _is_below(folder, driver)):
                found.append((kind or "driver", held_alone(folder)))
    return found


def held_alone(process: Path) -> int:
    """Return the bytes that a process, such as `/proc/self`, holds and shares with no other."""
    _, resident, shared, *_ = map(int, (process / "statm").read_text().split())
    return (resident - shared) * _PAGE


def _is_below(process: Path, ancestor: int) -> bool:
    while (parent := int((process / "stat").read_text().rpartition(") ")[2].split()[1])) > 1:
        if parent == ancestor:
            return True
        process = Path("/proc") / str(parent)
    return False
