"""Calibration: one temperature for all logits, so that of predictions with 80 %, four in five are right.

Guo et al. 2017, arXiv:1706.04599: probabilities are softmax(logits / T), with the T of the lowest negative
log-likelihood. It does not change the species of any image. The logarithms of stored probabilities serve as logits,
because softmax ignores what is added to all of them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

# Of equal width, as in Guo et al.
BINS = 15
# Beyond these the labels say "always right" or "never", and no temperature fits.
BOUNDS = (0.05, 20.0)

# The smallest normal float32: what was stored as 0 is at most that.
_LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Reliability:
    """How often predictions of each confidence are right.

    Attributes:
        images: int [BINS], with a top probability in (i / BINS, (i + 1) / BINS].
        confidence: float [BINS], the mean top probability; nan without images.
        accuracy: float [BINS], the share that is right; nan without images.
        nll: the mean negative log-likelihood of the labels, in nats.
    """

    images: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    nll: float

    @property
    def ece(self) -> float:
        """Return the expected calibration error: the gap of confidence and accuracy, weighted by images."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.nansum(gaps * self.images) / self.images.sum())


def logits(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return logits [N, C] of stored probabilities, up to a constant for each row; zeros count as 1.2e-38."""
    values: npt.NDArray[np.float32] = np.log(np.maximum(probabilities, _LEAST))
    return values


def softmax(values: npt.NDArray[np.float32], temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Return probabilities [N, C] of logits [N, C]; -inf gives 0."""
    shifted = (values - values.max(axis=1, keepdims=True)) / np.float32(temperature)
    exponentials: npt.NDArray[np.float32] = np.exp(shifted)
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def fit_temperature(values: npt.NDArray[np.float32], truth: npt.NDArray[np.intp]) -> float:
    """Return the temperature of the least negative log-likelihood, within BOUNDS, to four decimals.

    Args:
        values: logits [N, C].
        truth: the right class of each, [N]; its logit is finite.
    """
    # In 1/T this is convex, so that there is one minimum to find.
    bounds = (np.log(BOUNDS[0]), np.log(BOUNDS[1]))
    found = minimize_scalar(
        lambda log_t: _nll(values, truth, float(np.exp(log_t))),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return round(float(np.exp(found.x)), 4)


def reliability(values: npt.NDArray[np.float32], truth: npt.NDArray[np.intp], temperature: float = 1.0) -> Reliability:
    """Return the reliability of the top probabilities at a temperature; arguments as of `fit_temperature`."""
    probabilities = softmax(values, temperature)
    top = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(top * BINS).astype(np.intp) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(bins, top, BINS) / images
        accuracy = np.bincount(bins, right, BINS) / images
    return Reliability(images, confidence, accuracy, _nll(values, truth, temperature))


def _nll(values: npt.NDArray[np.float32], truth: npt.NDArray[np.intp], temperature: float) -> float:
    scaled = values.astype(np.float64) / temperature
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(truth)), truth]).mean())
