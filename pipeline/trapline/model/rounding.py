"""Measure how far bfloat16 moves a model's answers, on synthetic pictures: the bound for `checked`."""

import copy
from dataclasses import replace
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from trapline.model.boundaries import Boundaries
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor

# Numbers of pictures: the larger the pictures, the fewer are needed for a typical value, and the longer each takes.
_MOST, _LEAST = 32, 8
_PIXELS = _MOST * 128 * 128

# Side of blocks in pixels -> largest random shade of a block; the layers are added.
_BLOCKS = {32: 48, 16: 36, 8: 24, 4: 16, 2: 10, 1: 6}

# Contrasts, in tenths, and brightnesses, in all combinations: the last layers amplify what is dark or flat, and with it
# the rounding, up to twice.
_CONTRASTS = (2, 5, 10, 16)
_BRIGHTNESSES = (48, 88, 128, 178)

# The bound is this many times the typical rounding. Rounding has a long tail: relative to the nearest boundary, bf16
# moved one of 1,000 drawings or photographs by 4 to 12 times the typical rounding, and one of 10,000 by 6 to 16 times
# (four trained networks, 12,500 pictures of each kind). With a factor of 8, one of some 300,000 pictures got another
# class: it was 8.7 times the typical rounding away from the boundary.
FACTOR = 12.0
_STEPS_PER_DOUBLING = 4


def measure_bound(model: Model) -> float:
    """Return the bound of a model for `CheckedPredictor`, from 8 to 32 pictures in each precision, on the CPU.

    Args:
        model: has at least two classes; it is not changed.
    """
    return rounded_up(FACTOR * typical_rounding(model, made_up_pictures(_pictures(model.size), model.size)))


def _pictures(size: tuple[int, int]) -> int:
    return min(_MOST, max(_LEAST, _PIXELS // (size[0] * size[1])))


def typical_rounding(model: Model, pixels: npt.NDArray[np.uint8]) -> float:
    """Return how far bfloat16 moves pictures relative to the boundaries of other classes.

    The result is the root mean square over pictures and classes, which hardly depends on the pictures or the processor.

    Args:
        model: with at least two classes.
        pixels: uint8 [N, 3, H, W].
    """
    fast, exact = (logits(model, precision, pixels) for precision in ("bf16", "fp32"))
    best = fast.argmax(axis=1)
    moved = fast - exact
    shifts = Boundaries(model.network).shifts(moved - np.take_along_axis(moved, best[:, None], axis=1), best)
    return float(np.sqrt(np.square(shifts[np.isfinite(shifts)]).mean())) if np.isfinite(shifts).any() else 0.0


def logits(model: Model, precision: str, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the logits of pictures in a precision on the CPU, [N, C]."""
    own = replace(model, network=copy.deepcopy(model.network))
    predictor = Predictor(own, "cpu", "bf16" if precision == "bf16" else "fp32", len(pixels))
    return predictor.outputs(pixels).logits.numpy().astype(np.float64)


def rounded_up(bound: float) -> float:
    """Return the next larger power of the fourth root of two, on which different processors mostly agree."""
    return float(2 ** (ceil(_STEPS_PER_DOUBLING * log2(bound)) / _STEPS_PER_DOUBLING)) if bound else 0.0


def made_up_pictures(count: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Return pictures uint8 [N, 3, H, W] with structure of all sizes, grey and in colour; the same on every machine."""
    random = np.random.default_rng(0)
    height, width = size
    pictures = np.zeros((count, 3, height, width), np.int64)
    for number, picture in enumerate(pictures):
        for side, shade in _BLOCKS.items():
            shades = random.integers(-shade, shade + 1, (4, height // side, width // side))
            grey, tints = shades[:1], shades[1:] // 2
            picture += (grey if number % 3 == 0 else grey + tints).repeat(side, axis=1).repeat(side, axis=2)
        picture *= _CONTRASTS[number % 4]
        picture //= 10
        picture += _BRIGHTNESSES[number // 4 % 4]
    return pictures.clip(0, 255).astype(np.uint8)
