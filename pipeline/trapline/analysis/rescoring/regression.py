"""Multinomial logistic regression with an L2 penalty: scikit-learn's, with the same meaning for any number of classes.

With two classes scikit-learn fits one vector for both; here each class has its own, as with more classes. Classes
without examples stay in the result.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

_MOST_STEPS = 1000


@dataclass(frozen=True)
class Regression:
    """A fitted model.

    Attributes:
        weight: float64 [C, D].
        bias: float64 [C]; -inf for a class without examples.
        steps: of the optimiser.
        converged: whether it stopped by itself.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    steps: int = 0
    converged: bool = True

    def losses(self, features: npt.NDArray[np.float32], truth: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return negative log likelihoods, in nats, of those of N examples whose class had examples in the fit."""
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
        features: float32 [N, D], each of about unit variance.
        truth: class of each, N numbers below `count`, of at least two classes.
        count: number of classes C.
        strength: inverse strength of the penalty, scikit-learn's `C`.
        start: a fit to the same examples at another strength, to begin at.
    """
    present = np.unique(truth)
    two = len(present) == 2
    # One vector v stands for -v/2 and v/2, whose penalty is half of its own.
    model = LogisticRegression(C=2 * strength if two else strength, max_iter=_MOST_STEPS, warm_start=bool(start))
    if start:
        weight, bias = start.weight[present], start.bias[present]
        model.coef_, model.intercept_ = (weight[1:] - weight[:1], bias[1:] - bias[:1]) if two else (weight, bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
        model.fit(features, truth)
    weight, bias = np.zeros((count, features.shape[1])), np.full(count, -np.inf)
    weight[present] = np.concatenate([-model.coef_, model.coef_]) / 2 if two else model.coef_
    bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
    steps = int(model.n_iter_.max())
    return Regression(weight, bias, steps, converged=steps < _MOST_STEPS)
