"""Measure the network alone, Trapline's and birder's, with the same weights and images, in turn. Ray is not needed."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmark.contenders import Answers, Contender, Device, On, Pixels, Precision, contenders, normalised
from jobs.benchmark.rounds import Spread, take_turns
from trapline.errors import in_one_line
from trapline.model.architecture import VARIANTS
from trapline.model.checkpoint import Model
from trapline.model.device_errors import is_device_out_of_memory
from trapline.model.hiera import Hiera
from trapline.model.precision import multiplies_in_bf16

VARIANT, CLASSES, SIZE = "hiera_abswin_base", 707, (384, 384)

BATCH_SIZES: dict[Device, tuple[int, ...]] = {"cpu": (8,), "cuda": (64,)}

_MEAN, _STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)
SIDES: dict[Device, int] = {"cpu": 2048, "cuda": 8192}  # of the matrices by which the peak is measured
_PASSES: dict[Device, int] = {"cpu": 1, "cuda": 8}  # of a round: a GPU has the next one at hand while it is at work


@dataclass(frozen=True)
class Row:
    """One contender at one batch size. Figures that were not measured are None; `trouble` says why they could not be.

    Attributes:
        name: of the contender.
        batch_size: images in a pass.
        first_seconds: until its first answers; mostly compiling, if it is compiled.
        images_per_second: in the median.
        times_birder: ratio to birder in float32 (or to Trapline, if birder is not installed).
        share_of_peak: of the rate at which this machine multiplies large matrices in that precision.
        top1_agreement: share of the images with the class that the reference gives.
        cosine: the least one between an embedding and the reference's.
        max_probability_error: the largest |p - p_reference|.
        trouble: one line.
    """

    name: str
    batch_size: int
    first_seconds: float | None = None
    images_per_second: float | None = None
    times_birder: Spread | None = None
    share_of_peak: float | None = None
    top1_agreement: float | None = None
    cosine: float | None = None
    max_probability_error: float | None = None
    trouble: str | None = None


def random_model(variant: str = VARIANT, size: tuple[int, int] = SIZE) -> Model:
    """Return a network of random weights, always the same, with a classifier that tells images apart."""
    torch.manual_seed(0)
    network = Hiera(VARIANTS[variant], CLASSES, size).eval().requires_grad_(False)
    torch.nn.init.normal_(network.get_parameter("classifier.weight"))
    classes = tuple(f"species {number}" for number in range(CLASSES))
    return Model(network, variant, VARIANTS[variant], classes, size, _MEAN, _STD, "0" * 64, "random")


def gflop_per_image(model: Model) -> float:
    """Return the GFLOP of products and attention in one pass, a multiplication and an addition counted as two."""
    with torch.device("meta"):
        network = Hiera(model.architecture, len(model.classes), model.size).eval()
        image = torch.empty(1, 3, *model.size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.predict(image)
    return float(counter.get_total_flops()) / 1e9


def measure(
    console: Console,
    model: Model,
    pixels: Pixels | None,
    device: Device,
    batch_sizes: Sequence[int],
    rounds: int,
    compiled: bool,
    tuned: bool = False,
) -> tuple[list[Row], dict[Precision, float]]:
    """Measure all contenders, in turn, at one size of batch after the other.

    Args:
        console: shows what is going on.
        model: the network.
        pixels: uint8 [N, 3, H, W], the answers to which are compared; None for a batch of noise.
        device: where.
        batch_sizes: images in a pass.
        rounds: that count, of each contender.
        compiled: whether compiled networks are among them; each takes a minute or two, and a C++ compiler.
        tuned: whether ours is also compiled with kernels that are tried out, which takes many minutes.

    Returns:
        A row each; and the measured peaks, GFLOP/s by precision.
    """
    precisions: list[Precision] = ["fp32", "bf16"]
    peaks = {precision: _peak(console, device, precision) for precision in precisions}
    ours = precisions if multiplies_in_bf16(device) else precisions[:1]
    gflop = gflop_per_image(model)
    rows: list[Row] = []
    for size in batch_sizes:
        noise = np.random.default_rng(0).integers(0, 256, (size, 3, *model.size), dtype=np.uint8)
        images = noise if pixels is None else pixels
        answers = _over(_reference(model, device), images, size)
        firsts: list[Row] = []
        work: dict[str, Callable[[], int]] = {}
        precision_of: dict[str, Precision] = {}
        for name, make in contenders(model, device, ours, size, compiled, tuned).items():
            try:
                with console.status(f"first pass: {name}, batches of {size}"):
                    row, contender = _first_pass(Row(name, size), make, images, answers)
                    work[name], precision_of[name] = _round(contender, images, size, device), contender.precision
            except Exception as error:  # noqa: BLE001 - the others go on
                out = is_device_out_of_memory(error)
                row = Row(name, size, trouble="out of memory" if out else in_one_line(error))
            firsts.append(row)
        timings = take_turns(console, work, rounds)
        baseline = timings.get(firsts[0].name)
        for row in firsts:
            if timing := timings.get(row.name):
                row = replace(
                    row,
                    images_per_second=timing.rate,
                    times_birder=timing.times_as_fast_as(baseline) if baseline else None,
                    share_of_peak=timing.rate * gflop / peaks[precision_of[row.name]],
                )
            rows.append(row)
    return rows, peaks


def _first_pass(row: Row, make: Callable[[], Contender], pixels: Pixels, reference: Answers) -> tuple[Row, Contender]:
    """Build a contender for this row and compared with the reference."""
    started = perf_counter()
    contender = make()
    _over(contender.on, np.resize(pixels, (row.batch_size, *pixels.shape[1:])), row.batch_size)
    seconds = perf_counter() - started
    probabilities, embedding = _over(contender.on, pixels, row.batch_size)
    row = replace(
        row,
        first_seconds=seconds,
        top1_agreement=float((probabilities.argmax(1) == reference[0].argmax(1)).float().mean()),
        cosine=float(torch.cosine_similarity(embedding, reference[1]).min()),
        max_probability_error=float((probabilities - reference[0]).abs().max()),
    )
    return row, contender


def _round(contender: Contender, pixels: Pixels, size: int, device: Device) -> Callable[[], int]:
    work = contender.on(np.resize(pixels, (size, *pixels.shape[1:])))  # repeated, where there are fewer
    passes = _PASSES[device]

    def run() -> int:
        if contender.threads == 1:
            for _ in range(passes):
                work()
        else:
            with ThreadPoolExecutor(contender.threads) as threads:
                list(threads.map(lambda _: work(), range(passes)))
        if device == "cuda":
            torch.cuda.synchronize()
        return passes * size

    return run


def _over(on: On, pixels: Pixels, size: int) -> Answers:
    """Return the answers to all pixels, batch by batch, in the host's memory."""
    batches = [on(pixels[start : start + size])() for start in range(0, len(pixels), size)]
    probabilities, embeddings = (torch.cat([part.cpu() for part in parts]) for parts in zip(*batches, strict=True))
    return probabilities, embeddings


def _reference(model: Model, device: Device) -> On:
    """Run Trapline's plain network in float32, by few images at a time."""
    network = copy.deepcopy(model.network).to(device)

    def on(pixels: Pixels) -> Callable[[], Answers]:
        @torch.inference_mode()
        def predict() -> Answers:
            outputs = [network.predict(part.to(device)) for part in torch.split(normalised(model, pixels), 4)]
            logits, embeddings = (torch.cat(parts) for parts in list(zip(*outputs, strict=True))[:2])
            return logits.softmax(1), embeddings

        return predict

    return on


def _peak(console: Console, device: Device, precision: Precision) -> float:
    """Return GFLOP/s of a product of large square matrices: the best of several, on a CPU the better library's."""
    side = SIDES[device]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def multiply() -> int:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()
        return 1

    ways = {"mm": multiply}
    if device == "cpu":
        image = a.t().reshape(1, side, 1, side).contiguous(memory_format=torch.channels_last)
        kernel = b.view(side, side, 1, 1)

        def convolve() -> int:  # a product, by oneDNN
            torch.nn.functional.conv2d(image, kernel)
            return 1

        ways["conv"] = convolve
    timings = take_turns(console, ways, 8)
    return max(2 * side**3 / min(timing.seconds) / 1e9 for timing in timings.values())
