"""How far bfloat16 moves a model's answers: the bound for `checked`, measured on pictures that are made up."""

import copy
from dataclasses import replace
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor

IMAGES = 16

# Blocks of so many pixels on a side get a random shade each, on top of each other, the larger the blocks the more.
_BLOCKS = {32: 48, 16: 36, 8: 24, 4: 16, 2: 10, 1: 6}

FACTOR = 8.0
_STEPS_PER_DOUBLING = 4


def measure_bound(model: Model) -> float:
    """Return the bound of a model for `CheckedPredictor`: `IMAGES` pictures in each precision, on the CPU.

    Args:
        model: with at least two classes; it is left as it is.
    """
    return rounded_up(FACTOR * typical_rounding(model, made_up_pictures(IMAGES, model.size)))


def typical_rounding(model: Model, pixels: npt.NDArray[np.uint8]) -> float:
    """Return by how much bfloat16 moves the difference of two logits, the root mean square over images and classes.

    Args:
        model: with at least two classes.
        pixels: uint8 [N, 3, H, W].
    """
    fast, exact = (logits(model, precision, pixels) for precision in ("bf16", "fp32"))
    moved = fast - exact
    best = fast.argmax(axis=1)[:, None]
    differences = moved - np.take_along_axis(moved, best, axis=1)
    others = fast.shape[1] - 1  # of the best one, the difference to itself is none
    return float(np.sqrt((differences**2).sum() / (len(pixels) * others)))


def logits(model: Model, precision: str, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the logits of pictures in a precision on the CPU, [N, C]."""
    own = replace(model, network=copy.deepcopy(model.network))
    predictor = Predictor(own, "cpu", "bf16" if precision == "bf16" else "fp32", len(pixels))
    return predictor.outputs(pixels).logits.numpy().astype(np.float64)


def rounded_up(bound: float) -> float:
    """Return the next larger power of the fourth root of two: processors round alike, and mostly agree on it."""
    return float(2 ** (ceil(_STEPS_PER_DOUBLING * log2(bound)) / _STEPS_PER_DOUBLING)) if bound else 0.0


def made_up_pictures(count: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return pictures uint8 [N, 3, H, W] with structure of all sizes, as photographs have it; the same everywhere."""
    random = np.random.default_rng(0)
    height, width = size
    pictures = np.empty((count, 3, height, width), np.int64)
    for picture in pictures:
        picture[:] = random.integers(64, 192)
        for side, shade in _BLOCKS.items():
            for channels, amplitude in ((1, shade), (3, shade // 2)):  # grey, and tinted
                shades = random.integers(-amplitude, amplitude + 1, (channels, height // side, width // side))
                picture += shades.repeat(side, axis=1).repeat(side, axis=2)
    return pictures.clip(0, 255).astype(np.uint8)
