"""Measure bytes to pixels on one core, by the modes of `--decode` and by birder, and how far their pixels differ."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from jobs.benchmark.rounds import Spread, take_turns
from trapline.choices import DecodeMode
from trapline.cpu_count import usable_cpus
from trapline.decoding.decode import decode
from trapline.errors import UsageError
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions
from trapline.sources.file_types import is_image


@dataclass(frozen=True)
class Row:
    """One way to decode.

    Attributes:
        name: of the way.
        images_per_second: on one core, in the median.
        times_birder: ratio to birder's own transform (to our exact way, where birder is not there): median, range.
        mean_difference: of the pixels from the exact way's, of 255.
        largest_difference: the largest of these.
        top1_agreement: share of the images with the class that the exact way gives.
        cosine: the least and the mean one between an embedding and the exact way's.
    """

    name: str
    images_per_second: float
    times_birder: str
    mean_difference: float
    largest_difference: int
    top1_agreement: float
    cosine: tuple[float, float]


def photographs(folder: Path) -> list[bytes]:
    """List the sound images below a folder, in the order of their names.

    Raises:
        UsageError: there are none.
    """
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if is_image(path.name)]
    sound = [data for data in found if decode(data, (32, 32))[1].status == "ok"]
    if not sound:
        raise UsageError(f"{folder}: holds no image that can be decoded; give a folder of photographs")
    return sound


def pixels(images: Sequence[bytes], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return images as a network takes them, uint8 [N, 3, H, W]."""
    return torch.stack([_pixels(data, size, "exact") for data in images]).numpy()


def megapixels(images: Sequence[bytes]) -> float:
    """Return the average size of an image."""
    sizes = [Image.open(io.BytesIO(data)).size for data in images]
    return sum(width * height for width, height in sizes) / len(sizes) / 1e6


def measure(console: Console, images: Sequence[bytes], model: Model, rounds: int) -> list[Row]:
    """Measure all ways, in turn, over all images.

    Args:
        console: shows what is going on.
        images: encoded.
        model: of whose input size they become, and which then tells what difference the pixels make.
        rounds: over all images, that count.
    """
    ways: dict[str, Callable[[bytes], Tensor]] = {
        f"trapline {mode}": partial(_pixels, size=model.size, mode=mode) for mode in get_args(DecodeMode)
    }
    if find_spec("birder"):
        ways = _birders(model.size) | ways
    torch.set_num_threads(1)

    def over_all(way: Callable[[bytes], Tensor]) -> Callable[[], int]:
        def run() -> int:
            for data in images:
                way(data)
            return len(images)

        return run

    timings = take_turns(console, {name: over_all(way) for name, way in ways.items()}, rounds)
    pixels = {name: torch.stack([way(data) for data in images]) for name, way in ways.items()}
    torch.set_num_threads(usable_cpus())
    predictor = Predictor(model, "cpu", "fp32", 8)
    answers = {name: predictor(stack.numpy()) for name, stack in pixels.items()}
    baseline, exact = next(iter(timings.values())), "trapline exact"
    rows = []
    for name, timing in timings.items():
        difference = (pixels[name].float() - pixels[exact].float()).abs()
        rows.append(
            Row(
                name=name,
                images_per_second=timing.rate,
                times_birder=str(timing.times_as_fast_as(baseline)),
                mean_difference=float(difference.mean()),
                largest_difference=int(difference.max()),
                top1_agreement=_agreement(answers[name], answers[exact]),
                cosine=_cosines(answers[name], answers[exact]),
            )
        )
    return rows


def cost_of_damage(console: Console, images: Sequence[bytes], size: tuple[int, int], rounds: int) -> dict[str, Spread]:
    """Measure what damaged files cost, as a multiple of the time that the same files take when they are sound."""
    damages: dict[str, Callable[[bytes], bytes]] = {
        "sound": lambda data: data,
        "cut in half": lambda data: data[: len(data) // 2],
        "no image": lambda data: b"?" + data,
    }
    torch.set_num_threads(1)

    def over_all(damaged: list[bytes]) -> Callable[[], int]:
        return lambda: len([decode(data, size) for data in damaged])

    contenders = {name: over_all([damage(data) for data in images]) for name, damage in damages.items()}
    timings = take_turns(console, contenders, rounds)
    sound = timings.pop("sound")
    return {name: sound.times_as_fast_as(timing) for name, timing in timings.items()}


def _pixels(data: bytes, size: tuple[int, int], mode: DecodeMode) -> Tensor:
    pixels, facts = decode(data, size, mode)
    if pixels is None:
        raise UsageError(f"one of the images cannot be decoded: {facts.error}")
    return pixels


def _birders(size: tuple[int, int]) -> dict[str, Callable[[bytes], Tensor]]:
    """Return birder's inference transform on what its two loaders give, up to the uint8 stage."""
    from birder.data.transforms.classification import inference_preset
    from torchvision.io import decode_image
    from torchvision.transforms import v2

    transform: Any = inference_preset(size, {"mean": (0, 0, 0), "std": (1, 1, 1)})
    resize = next(step for step in transform.transforms if isinstance(step, v2.Resize))
    to_tensor = v2.PILToTensor()

    def default(data: bytes) -> Tensor:
        pixels: Tensor = resize(decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode="RGB"))
        return pixels

    def pillow(data: bytes) -> Tensor:
        pixels: Tensor = to_tensor(resize(Image.open(io.BytesIO(data)).convert("RGB")))
        return pixels

    return {"birder, Pillow loader": pillow, "birder, default loader": default}


def _agreement(found: Predictions, expected: Predictions) -> float:
    return float(np.mean(found.probabilities.argmax(1) == expected.probabilities.argmax(1)))


def _cosines(found: Predictions, expected: Predictions) -> tuple[float, float]:
    a, b = torch.from_numpy(found.embedding), torch.from_numpy(expected.embedding)
    cosines = torch.cosine_similarity(a, b)
    return float(cosines.min()), float(cosines.mean())
