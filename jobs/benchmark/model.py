"""The network alone: ours and birder's on the same weights and the same images, in turn.

birder's networks get images that are normalised already; ours get uint8 pixels, as in a run. No Ray is needed, and
where birder is not installed ours are measured against each other.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from jobs.benchmark.rounds import Timing, take_turns
from pipeline.checkpoint import Model
from pipeline.hiera import VARIANTS, Hiera
from pipeline.predict import Predictor, multiplies_in_bf16

VARIANT, CLASSES, SIZE = "hiera_abswin_base", 707, (384, 384)
GFLOP_PER_IMAGE = 60.4  # of that variant, at that size

_MEAN, _STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)


@dataclass(frozen=True)
class Row:
    """One contender.

    Attributes:
        name: of the contender.
        images_per_second: in the median.
        times_birder: ratio to birder in float32 (or to our reference, where birder is not there): median, range.
        share_of_peak: of the rate at which this machine multiplies large matrices in that precision.
        top1_agreement: share of the images with the class that the reference gives.
        cosine: the least one between an embedding and the reference's.
        max_probability_error: the largest |p - p_reference|.
    """

    name: str
    images_per_second: float
    times_birder: str
    share_of_peak: float
    top1_agreement: float
    cosine: float
    max_probability_error: float


def random_model(variant: str = VARIANT, size: tuple[int, int] = SIZE, seed: int = 0) -> Model:
    """A network of random weights, with a classifier that tells images apart."""
    torch.manual_seed(seed)
    network = Hiera(VARIANTS[variant], CLASSES, size).eval().requires_grad_(False)
    torch.nn.init.normal_(network.get_parameter("classifier.weight"))
    classes = tuple(f"species {number}" for number in range(CLASSES))
    return Model(network, variant, VARIANTS[variant], classes, size, _MEAN, _STD, "0" * 64, "random")


def measure(
    console: Console, device: Literal["cpu", "cuda"], batch_size: int, rounds: int, compiled: bool
) -> tuple[list[Row], dict[str, float]]:
    """All contenders, in turn.

    Args:
        console: shows what is going on.
        device: where.
        batch_size: images in a pass.
        rounds: passes that count, of each contender.
        compiled: whether birder's compiled network is among them; it takes a minute or two, and a C++ compiler.

    Returns:
        A row each; and the measured peaks, GFLOP/s by precision.
    """
    model = random_model()
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, 3, *SIZE), dtype=np.uint8)
    contenders: dict[str, tuple[str, Callable[[], tuple[Tensor, Tensor]]]] = {}
    if find_spec("birder"):
        contenders |= _birders(model, pixels, device, compiled)
    for precision in ("fp32", "bf16"):
        if precision == "fp32" or multiplies_in_bf16(device):
            contenders[f"trapline {precision}"] = (precision, _ours(model, pixels, device, precision))

    reference = _reference(model, pixels)
    answers = {name: work() for name, (_, work) in contenders.items()}

    def batch_of(work: Callable[[], Any]) -> Callable[[], int]:
        def run() -> int:
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            return batch_size

        return run

    timings = take_turns(console, {name: batch_of(work) for name, (_, work) in contenders.items()}, rounds)
    peaks = {precision: _peak(console, device, precision) for precision in {p for p, _ in contenders.values()}}
    baseline = next(iter(timings.values()))
    return [
        _row(name, timings[name], baseline, peaks[contenders[name][0]], answers[name], reference) for name in contenders
    ], peaks


def _row(
    name: str,
    timing: Timing,
    baseline: Timing,
    peak: float,
    answer: tuple[Tensor, Tensor],
    reference: tuple[Tensor, Tensor],
) -> Row:
    probabilities, embedding = answer
    return Row(
        name=name,
        images_per_second=timing.rate,
        times_birder=str(timing.times_as_fast_as(baseline)),
        share_of_peak=timing.rate * GFLOP_PER_IMAGE / peak,
        top1_agreement=float((probabilities.argmax(1) == reference[0].argmax(1)).float().mean()),
        cosine=float(torch.cosine_similarity(embedding, reference[1]).min()),
        max_probability_error=float((probabilities - reference[0]).abs().max()),
    )


def _reference(model: Model, pixels: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Our network as it reads, in float32 on the CPU."""
    with torch.inference_mode():
        output = model.network.predict(_normalised(pixels))
    return output.logits.softmax(1), output.embedding


def _ours(
    model: Model, pixels: np.ndarray[Any, Any], device: Literal["cpu", "cuda"], precision: Literal["fp32", "bf16"]
) -> Callable[[], tuple[Tensor, Tensor]]:
    predictor = Predictor(copy.deepcopy(model), device, precision, len(pixels))

    def predict() -> tuple[Tensor, Tensor]:
        predictions = predictor(pixels)
        return torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.embedding)

    return predict


def _birders(
    model: Model, pixels: np.ndarray[Any, Any], device: str, compiled: bool
) -> dict[str, tuple[str, Callable[[], tuple[Tensor, Tensor]]]]:
    from birder.inference.classification import infer_batch
    from birder.model_registry import registry

    network = registry.net_factory(VARIANT, CLASSES, 3, size=SIZE).eval()
    network.load_state_dict(model.network.state_dict())
    network.to(device)
    images = _normalised(pixels).to(device)

    def contender(net: Any, amp: bool) -> Callable[[], tuple[Tensor, Tensor]]:
        def predict() -> tuple[Tensor, Tensor]:
            with torch.inference_mode(), torch.amp.autocast(device, torch.bfloat16, enabled=amp):
                probabilities, embedding = infer_batch(net, images, return_embedding=True)
            return torch.from_numpy(probabilities), torch.from_numpy(embedding)

        return predict

    found = {
        "birder fp32": ("fp32", contender(network, amp=False)),
        "birder bf16 autocast": ("bf16", contender(network, amp=True)),
    }
    if compiled:
        # As `birder-predict --compile` does it.
        fast = copy.deepcopy(network)
        fast.embedding = torch.compile(fast.embedding)  # type: ignore[method-assign]
        found["birder bf16 autocast compiled"] = ("bf16", contender(fast, amp=True))
    return found


def _normalised(pixels: np.ndarray[Any, Any]) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (torch.from_numpy(pixels).float().div_(255) - mean).div_(std)


def _peak(console: Console, device: str, precision: str) -> float:
    """GFLOP/s of a product of large square matrices: the best of several, by the better of two libraries on a CPU."""
    side = 8192 if device == "cuda" else 2048
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
