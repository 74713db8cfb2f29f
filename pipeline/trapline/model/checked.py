"""Most of bfloat16's speed with float32's classes: images whose class is in doubt are computed again in float32.

The class differs from float32's only if rounding moves the image across the boundary between two classes. So an image
is in doubt if it is closer to a boundary than rounding moves any image. `rounding` measures this bound.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Literal

import numpy as np
import numpy.typing as npt

from trapline.model.boundaries import Boundaries, log_ratios
from trapline.model.checkpoint import Model
from trapline.model.cpu_threads import CpuThreads
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions

# Images of a float32 pass on a GPU: few images of a batch are in doubt, and larger passes would be mostly padding.
_GPU_PASS = 16


def make_predictor(
    model: Model,
    device: Literal["cpu", "cuda"],
    precision: Literal["fp32", "bf16", "checked"],
    batch_size: int,
    stages: Sequence[str] = (),
    note: Callable[[str], object] = warnings.warn,
    *,
    bound: float | None = None,
    threads: CpuThreads | None = None,
) -> "Predictor | CheckedPredictor":
    """Return the predictor for a precision; arguments and errors as of the two classes."""
    if precision != "checked":
        return Predictor(model, device, precision, batch_size, stages, note, threads)
    assert bound is not None, "precision checked needs the bound of the model"
    return CheckedPredictor(model, device, bound, batch_size, stages, note, threads)


class CheckedPredictor:
    """A model on a device in both precisions; several threads may call it.

    Args:
        model: the checkpoint, with at least two classes; its network is moved and cast.
        device: "cpu" or "cuda".
        bound: images closer to a boundary than this are computed again; see `Boundaries`.
        batch_size: the most images in one pass; halved permanently when the device runs out of memory.
        stages: feature maps to return.
        note: receives warnings for the user.
        threads: as of `Predictor`.

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
        threads: CpuThreads | None = None,
    ) -> None:
        if device == "cpu":
            threads = threads or CpuThreads()  # the same ones for both
        self._boundaries = Boundaries(model.network)
        exact = replace(model, network=copy.deepcopy(model.network))
        few = batch_size if device == "cpu" else min(batch_size, _GPU_PASS)
        self.exact = Predictor(exact, device, "fp32", few, stages, note, threads)
        self.fast = Predictor(model, device, "bf16", batch_size, stages, note, threads)
        self.gpu = self.fast.gpu
        self.bound = self.planned = bound
        self._note = note
        self._noted = False
        self._learning = Lock()

    @property
    def batch_size(self) -> int:
        """Most images in one pass."""
        return self.fast.batch_size

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Predictions:
        """Predict for pixels uint8 [N, 3, H, W], N at least 1.

        Images that are computed again show how far bfloat16 moves images of this archive. If that is further than the
        bound, the bound is raised for this and all later batches.

        Raises:
            FatalError: the device has no memory for even one image.
        """
        return self.check(pixels, self.fast(pixels))

    def check(self, pixels: npt.NDArray[np.uint8], found: Predictions) -> Predictions:
        """Return predictions by bfloat16, with those in doubt computed again; arguments and errors as of the call."""
        distances = self.distances(found.probabilities).min(axis=1)
        in_bf16 = np.full(len(distances), True)
        whole = replace(copy.deepcopy(found), in_bf16=in_bf16)
        # Not `distances < bound`: NaN is in doubt, too.
        while len(doubtful := np.flatnonzero(in_bf16 & ~(distances >= self.bound))):
            again = self.exact(pixels[doubtful])
            self._learn(found.probabilities[doubtful], again.probabilities)
            _replace(whole, doubtful, again)
        return whole

    def _learn(self, fast: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> None:
        """Raise the bound to the distance by which bfloat16 moved images that were computed in both precisions."""
        needed = self._moved(fast, exact)
        with self._learning:
            if needed <= self.bound:
                return
            self.bound = needed if np.isfinite(needed) else np.inf
            first, self._noted = not self._noted, True
        if first:
            self._note(
                f"--precision checked: bf16 rounds these images more than the pictures on which the model's bound was "
                f"measured ({needed:.2g} instead of {self.planned:.2g}): more of them are computed twice, to be safe"
            )

    def distances(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how far images with these probabilities are from the boundary to each other class, float64 [N, C]."""
        best = probabilities.argmax(axis=1)
        return self._boundaries.shifts(log_ratios(probabilities, best), best)

    def _moved(self, fast: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
        """Return the furthest that bfloat16 moved an image relative to the boundary that is nearest by `fast`."""
        best, nearest = fast.argmax(axis=1), self.distances(fast).argmin(axis=1)
        with np.errstate(invalid="ignore"):  # inf - inf, for classes whose probability is 0 in both
            shifts = self._boundaries.shifts(log_ratios(exact, best) - log_ratios(fast, best), best)
        return float(shifts[np.arange(len(best)), nearest].max())


def _replace(whole: Predictions, places: npt.NDArray[np.intp], again: Predictions) -> None:
    """Replace the predictions at some places by others, computed in float32."""
    for name in ("probabilities", "energy", "embedding"):
        getattr(whole, name)[places] = getattr(again, name)
    for stage, maps in whole.features.items():
        maps[places] = again.features[stage]
    if whole.in_bf16 is not None:
        whole.in_bf16[places] = False
