"""Multinomial logistic regression with an L2 penalty, on a GPU where there is one.

Objective, optimiser (L-BFGS) and tolerances are those of scikit-learn's `LogisticRegression`, and so are the results.
With two classes both get a vector, as with more; scikit-learn has one for the two of them, and its `C` is then twice
the strength here. Nearly all of the work is matrix products, and those are torch's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

_MOST_STEPS = 1000
# Of the gradient of the mean loss, and of the loss itself, relatively; both as in scikit-learn.
_GRADIENT_TOLERANCE = 1e-4
_LOSS_TOLERANCE = 64 * float(np.finfo(float).eps)
_LINE_SEARCH_STEPS = 50
# Examples whose logits are in memory at a time: 23 MB with 700 classes.
_AT_ONCE = 8192
# Multiplications of one step below which one thread does it alone, in some ms: on a busy machine, to wait for a second
# one has made steps of 0.2 ms take 30.
_WORTH_THREADS = 2**26


@dataclass(frozen=True)
class Regression:
    """What was fitted.

    Attributes:
        weight: float64 [C, D].
        bias: float64 [C]; -inf for a class without examples.
        converged: whether the optimiser came to its end.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    converged: bool = True

    def losses(self, features: npt.NDArray[np.float32], truth: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Negative log likelihood in nats of those of N examples whose class had examples in the fit."""
        known = np.isfinite(self.bias)[truth]
        logits = features[known] @ self.weight.T + self.bias
        losses: npt.NDArray[np.float64] = logsumexp(logits, axis=1) - logits[np.arange(len(logits)), truth[known]]
        return losses


def fit(
    features: npt.NDArray[np.float32],
    truth: npt.NDArray[np.intp],
    count: int,
    strength: float,
    start: Regression | None = None,
) -> Regression:
    """Minimise `strength` · Σ negative log likelihood + ½ ‖weight‖².

    Args:
        features: float32 [N, D], of about unit variance each.
        truth: class of each, N numbers below `count`.
        count: how many classes C there are; those without examples are left out of it.
        strength: inverse strength of the penalty, scikit-learn's `C`.
        start: a fit to the same examples at another strength, to begin at.
    """
    present, places = np.unique(truth, return_inverse=True)
    loss = _Loss(features, places, len(present), 1 / (strength * len(features)))
    first = np.zeros((len(present), features.shape[1] + 1))
    if start:
        first[:, :-1], first[:, -1] = start.weight[present], start.bias[present]
    options = {
        "maxiter": _MOST_STEPS,
        "maxls": _LINE_SEARCH_STEPS,
        "gtol": _GRADIENT_TOLERANCE,
        "ftol": _LOSS_TOLERANCE,
    }
    with _threads(features.size * len(present)):
        found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    best = found.x.reshape(first.shape)
    weight, bias = np.zeros((count, features.shape[1])), np.full(count, -np.inf)
    weight[present], bias[present] = best[:, :-1], best[:, -1]
    return Regression(weight, bias, converged=found.nit < _MOST_STEPS)


@contextmanager
def _threads(multiplications: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if multiplications >= _WORTH_THREADS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loss:
    """Mean negative log likelihood with the penalty, and its gradient, at parameters [C, D + 1], flat."""

    def __init__(
        self, features: npt.NDArray[np.float32], truth: npt.NDArray[np.intp], count: int, penalty: float
    ) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.features = torch.from_numpy(features).to(device)
        self.truth = torch.from_numpy(truth).to(device)
        self.shape = (count, features.shape[1] + 1)
        self.penalty = penalty

    def __call__(self, flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        parameters = torch.from_numpy(flat.astype(np.float32)).to(self.features.device).view(self.shape)
        weight, bias = parameters[:, :-1], parameters[:, -1]
        gradient = torch.zeros_like(parameters)
        loss = torch.zeros((), dtype=torch.float64, device=parameters.device)
        for some, truth in zip(torch.split(self.features, _AT_ONCE), torch.split(self.truth, _AT_ONCE), strict=True):
            excess = torch.addmm(bias, some, weight.T).log_softmax(dim=1)
            loss -= excess.gather(1, truth[:, None]).sum(dtype=torch.float64)
            excess.exp_()[torch.arange(len(truth), device=truth.device), truth] -= 1
            gradient[:, :-1].addmm_(excess.T, some)
            gradient[:, -1] += excess.sum(dim=0)
        gradient /= len(self.features)
        gradient[:, :-1] += self.penalty * weight
        total = loss / len(self.features) + self.penalty / 2 * weight.square().sum(dtype=torch.float64)
        return total.item(), gradient.double().cpu().numpy().ravel()
