"""bfloat16's speed with float32's classes: what bfloat16 leaves in doubt is computed again in float32.

Rounding moves the difference of two logits, which is the logarithm of the ratio of two probabilities, by about the same
for all images of a network, whatever the probabilities are. The class can differ from float32's only where it moves
that of the two best by more than they are apart. So an image is in doubt where they are closer than a bound, which
`rounding` measures.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions

# Images of a pass in float32 on a GPU: there are few in a batch, and shorter passes would leave most of it idle.
_GPU_PASS = 16


def predictor(
    model: Model,
    device: Literal["cpu", "cuda"],
    precision: Literal["fp32", "bf16", "checked"],
    batch_size: int,
    stages: Sequence[str] = (),
    note: Callable[[str], object] = warnings.warn,
    *,
    bound: float | None = None,
) -> "Predictor | CheckedPredictor":
    """Return what predicts in a precision; arguments and errors as of the two classes."""
    if precision != "checked":
        return Predictor(model, device, precision, batch_size, stages, note)
    assert bound is not None, "precision checked needs the bound of the model"
    return CheckedPredictor(model, device, bound, batch_size, stages, note)


class CheckedPredictor:
    """A model on a device in both precisions, for chunk after chunk, callable from several threads.

    Args:
        model: the checkpoint, with at least two classes; its network is moved and cast.
        device: "cpu" or "cuda".
        bound: of the difference of the two best logits, below which an image is computed again.
        batch_size: most images in one pass; halved for good when the device runs out of memory.
        stages: feature maps to return.
        note: receives warnings for the user.

    Raises:
        UsageError: torch finds no such device.
    """

    def __init__(
        self,
        model: Model,
        device: Literal["cpu", "cuda"],
        bound: float,
        batch_size: int,
        stages: Sequence[str] = (),
        note: Callable[[str], object] = warnings.warn,
    ) -> None:
        exact = replace(model, network=copy.deepcopy(model.network))
        few = batch_size if device == "cpu" else min(batch_size, _GPU_PASS)
        self.exact = Predictor(exact, device, "fp32", few, stages, note)
        self.fast = Predictor(model, device, "bf16", batch_size, stages, note)
        self.gpu = self.fast.gpu
        self.bound = bound
        self._note = note
        self._trusted = True

    @property
    def batch_size(self) -> int:
        """Most images in one pass."""
        return self.fast.batch_size

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Predictions:
        """Predict for pixels uint8 [N, 3, H, W], N at least 1.

        The images that are computed again show how far bfloat16 is off. Where that is further than the bound, the bound
        is wrong for these images: they and all later ones are computed in float32.

        Raises:
            FatalError: the device has no memory for even one image.
        """
        if not self._trusted:
            return self.exact(pixels)
        found = self.fast(pixels)
        doubtful = np.flatnonzero(~(log_ratio(found.probabilities) >= self.bound))  # what is no number is in doubt too
        if not len(doubtful):
            return found
        again = self.exact(pixels[doubtful])
        moved = _moved(found.probabilities[doubtful], again.probabilities)
        if not moved <= self.bound:
            self._trusted = False
            self._note(
                f"bf16 is off by {moved:.2g} in the logarithm of two probabilities' ratio, where --precision checked "
                f"expects at most {self.bound:.2g}: this worker goes on in fp32, slower"
            )
            return self.exact(pixels)
        return _with_replaced(found, doubtful, again)


def log_ratio(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the logarithm of the ratio of the two best probabilities, float64 [N], of [N, C]; C is at least 2."""
    second, first = np.partition(probabilities.astype(np.float64), [-2, -1], axis=1)[:, -2:].T
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(first) - np.log(second))


def _moved(fast: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    """Return how far the log-ratio of the two best classes by `fast` is from that by `exact`, at most; both [N, C]."""
    best = np.argpartition(fast, [-2, -1], axis=1)[:, -2:]
    pairs = (np.take_along_axis(each, best, axis=1).astype(np.float64) for each in (fast, exact))
    with np.errstate(divide="ignore"):
        ours, theirs = (np.log(pair[:, 1]) - np.log(pair[:, 0]) for pair in pairs)
    return float(np.abs(ours - theirs).max())


def _with_replaced(found: Predictions, places: npt.NDArray[np.intp], again: Predictions) -> Predictions:
    """Return predictions in which those at some places are others, computed in float32."""
    for name in ("probabilities", "energy", "embedding"):
        getattr(found, name)[places] = getattr(again, name)
    for stage, maps in found.features.items():
        maps[places] = again.features[stage]
    in_bf16 = np.full(len(found.energy), True)
    in_bf16[places] = False
    return replace(found, in_bf16=in_bf16)
