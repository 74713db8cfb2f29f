import numpy as np
import pytest

from trapline.analysis.rescoring import regression
from trapline.analysis.rescoring.regression import Regression, fit


def planted(count: int, classes: int, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] that depend on their class, of which some are frequent and others rare."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(2 / classes, count) - 1, classes - 1)
    truth[:classes] = np.arange(classes)
    features = rng.normal(0, 1, (classes, width))[truth] + rng.normal(0, 1.5, (count, width))
    return features.astype(np.float32), truth


def slope(found: Regression, features: np.ndarray, truth: np.ndarray, strength: float) -> float:
    """The largest derivative of the mean loss with the penalty, by weights and biases, in float64."""
    logits = features.astype(np.float64) @ found.weight.T + found.bias
    excess = np.exp(logits - logits.max(axis=1, keepdims=True))
    excess /= excess.sum(axis=1, keepdims=True)
    excess[np.arange(len(truth)), truth] -= 1
    by_weight = excess.T @ features / len(truth) + found.weight / (strength * len(truth))
    return float(max(np.abs(by_weight).max(), np.abs(excess.mean(axis=0)).max()))


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 12])
def test_the_objective_is_at_its_minimum_for_two_classes_as_for_more(classes: int, strength: float) -> None:
    features, truth = planted(1000, classes)
    found = fit(features, truth, classes, strength)
    assert found.converged
    start = Regression(np.zeros_like(found.weight), np.zeros_like(found.bias))
    assert slope(found, features, truth, strength) < slope(start, features, truth, strength) / 30


def test_a_class_without_examples_gets_no_share_and_its_examples_no_loss() -> None:
    features, truth = planted(400, 4)
    rest = truth != 2
    found = fit(features[rest], truth[rest], 5, 0.1)
    assert list(np.isneginf(found.bias)) == [False, False, True, False, True]
    losses = found.losses(features, truth)
    assert losses.shape == (rest.sum(),)
    assert losses.mean() < np.log(3)
    whole = fit(features[rest], np.searchsorted([0, 1, 3], truth[rest]), 3, 0.1)
    assert np.array_equal(found.weight[[0, 1, 3]], whole.weight)


@pytest.mark.parametrize("classes", [2, 6])
def test_a_fit_that_begins_where_another_ended_gets_there_sooner(classes: int) -> None:
    features, truth = planted(1000, classes)
    cold = fit(features, truth, classes, 1.0)
    again = fit(features, truth, classes, 1.0, cold)
    assert again.steps < cold.steps / 2
    assert slope(again, features, truth, 1.0) <= slope(cold, features, truth, 1.0) * 1.01


def test_one_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "_MOST_STEPS", 2)
    assert not fit(*planted(500, 5), 5, 1.0).converged
