"""Measure whole programs, from photographs to answers on disk: `trapline classify` and what one would use instead.

Each program runs over a small and a large archive in turn. The difference between the two is what the images cost, and
the rest of the small run is what start and end cost.
"""

import copy
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
import torch
from rich.console import Console

from jobs.benchmark import decoding
from jobs.benchmark.model import VARIANT
from jobs.benchmark.rounds import Spread, take_turns
from trapline.errors import UsageError
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor

_SHARDS = 4
_UNSURE = slice(1, 2)  # the one that is furthest from the first
PRECISIONS = {"auto": "trapline", "fp32": "trapline, fp32", "bf16": "trapline, bf16"}
"""Trapline's programs by precision."""


@dataclass(frozen=True)
class Seconds:
    """Times of one program, round by round.

    Attributes:
        small: over the small archive.
        large: over the large one.
    """

    small: list[float]
    large: list[float]


@dataclass(frozen=True)
class Row:
    """One program.

    Attributes:
        name: of it.
        images_per_second: once under way.
        as_fast_as: by precision of trapline, its rate to this program's, and the range of the rounds.
        start_seconds: before the first image and after the last.
        seconds: from which these are.
    """

    name: str
    images_per_second: float
    as_fast_as: dict[str, str]
    start_seconds: float
    seconds: Seconds


def measure(
    console: Console, images: Sequence[bytes], model: Model, scratch: Path, small: int, large: int, rounds: int
) -> tuple[list[Row], float]:
    """Measure all programs, in turn.

    Args:
        console: shows what is going on.
        images: encoded JPEGs, repeated as often as the archives need.
        model: for all of them.
        scratch: a folder for archives, the checkpoint and the answers.
        small: images in the small archive.
        large: in the large one.
        rounds: over both, that count.

    Returns:
        A row for each, and the share of the images that trapline's first program computed twice.

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

    seconds = {
        name: Seconds(*(timings[f"{name}, {count} images"].seconds for count in (small, large))) for name in programs
    }
    contenders[f"{PRECISIONS['auto']}, {large} images"]()
    return rows_of(seconds, small, large), _computed_twice(scratch / "out")


def rows_of(seconds: Mapping[str, Seconds], small: int, large: int) -> list[Row]:
    """Return the figures of programs, trapline's among them, from their seconds by name.

    Rates are those of median times: the difference of two runs of one round counts twice what slowed one of them.
    """

    def rate(before: float, after: float) -> float:
        return (large - small) / (after - before)

    medians = {name: rate(median(times.small), median(times.large)) for name, times in seconds.items()}
    by_round = {name: list(map(rate, times.small, times.large)) for name, times in seconds.items()}

    def ratio(own: str, other: str) -> str:
        rounds = [mine / theirs for mine, theirs in zip(by_round[own], by_round[other], strict=True)]
        return str(Spread(medians[own] / medians[other], min(rounds), max(rounds)))

    return [
        Row(
            name,
            medians[name],
            {precision: ratio(own, name) for precision, own in PRECISIONS.items()},
            median(times.small) - small / medians[name],
            times,
        )
        for name, times in seconds.items()
    ]


def with_answers(model: Model, images: Sequence[bytes]) -> Model:
    """Return a model with a classifier that is certain about most of some images.

    A classifier of random weights is certain about no image, and `checked` would compute all of them twice. Here a
    quarter of the images, those that differ most, are the classes, and an image is of the class whose embedding is
    nearest; one image is of two classes.

    Args:
        model: with more classes than there are images; its embeddings are kept.
        images: encoded; more than two.
    """
    predictor = Predictor(replace(model, network=copy.deepcopy(model.network)), "cpu", "fp32", 8)
    found = torch.from_numpy(predictor(decoding.pixels(images, model.size)).embedding).double()
    chosen = [0]
    while len(chosen) < len(found) // 4:
        chosen.append(int(torch.cdist(found, found[chosen]).amin(1).argmax()))
    own = found[chosen]
    centre = own.mean(0)
    weight, bias = own - centre, (centre.square().sum() - own.square().sum(1)) / 2
    # Behind them, a copy of a class, tilted about the embedding of its image.
    unsure = own[_UNSURE]
    tilt = torch.randn(unsure.shape, generator=torch.Generator().manual_seed(0), dtype=unsure.dtype)
    weight = torch.cat([weight, weight[_UNSURE] + tilt])
    bias = torch.cat([bias, bias[_UNSURE] - (tilt * unsure).sum(1)])
    scale = 20 / (own - centre).square().sum(1).median()  # as logits are in trained networks
    network = copy.deepcopy(model.network)
    rows, offsets = (network.get_parameter(f"classifier.{name}") for name in ("weight", "bias"))
    rows.data.zero_()
    offsets.data.fill_(-50)  # classes that do not occur
    rows.data[: len(weight)] = (scale * weight).float()
    offsets.data[: len(bias)] = (scale * bias).float()
    return replace(model, network=network)


def _programs(model: Path, scratch: Path) -> dict[str, Callable[[int], list[str]]]:
    python, output = sys.executable, str(scratch / "out")
    peers = [python, "-m", "jobs.benchmark.peers"]
    classify = [python, "-m", "jobs.classify"]
    programs: dict[str, Callable[[int], list[str]]] = {
        "trapline": lambda count: [*classify, str(scratch / f"shards-{count}"), output, "--model", str(model)],
        "trapline, fp32": lambda count: [*programs["trapline"](count), "--precision", "fp32"],
        "trapline, bf16": lambda count: [*programs["trapline"](count), "--precision", "bf16"],
    }
    for precision in ("fp32", "bf16"):
        programs[f"bare torch loop, {precision}"] = lambda count, precision=precision: [  # type: ignore[misc]
            *peers, "bare", str(model), str(scratch / f"images-{count}"), output, precision
        ]  # fmt: skip
    programs |= {
        "naive Ray Data, fp32": lambda count: [*peers, "naive", str(model), str(scratch / f"images-{count}"), output]
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


def _computed_twice(output: Path) -> float:
    """Return the share of rows in fp32, of results in which there are others."""
    found = [row for path in output.rglob("*.parquet") for row in pq.read_table(path).column("precision").to_pylist()]
    return found.count("fp32") / len(found) if "bf16" in found else 0.0


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
