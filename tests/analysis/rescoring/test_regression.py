from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from trapline.analysis.rescoring import regression
from trapline.analysis.rescoring.regression import fit


def planted(count: int, classes: int, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] that say something of their class, of which some are frequent and others rare."""
    rng = np.random.default_rng(seed)
    truth = np.minimum(rng.geometric(2 / classes, count) - 1, classes - 1)
    truth[:classes] = np.arange(classes)
    features = rng.normal(0, 1, (classes, width))[truth] + rng.normal(0, 1.5, (count, width))
    return features.astype(np.float32), truth


def oracle(features: np.ndarray, truth: np.ndarray, strength: float, **options: Any) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000, **options).fit(features, truth)


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("classes", [3, 12])
def test_coefficients_are_those_of_scikit_learn(classes: int, strength: float) -> None:
    features, truth = planted(1000, classes)
    found, wanted = fit(features, truth, classes, strength), oracle(features, truth, strength)
    assert found.converged
    scale = float(np.abs(wanted.coef_).max())
    assert found.weight == pytest.approx(wanted.coef_, abs=0.01 * scale)
    assert found.bias - found.bias.mean() == pytest.approx(wanted.intercept_ - wanted.intercept_.mean(), abs=0.02)


def test_so_they_are_where_the_examples_do_not_fit_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = planted(500, 5)
    whole = fit(features, truth, 5, 0.1)
    monkeypatch.setattr(regression, "_AT_ONCE", 64)
    assert fit(features, truth, 5, 0.1).weight == pytest.approx(whole.weight, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_gradient_is_that_of_the_objective(classes: int) -> None:
    features, truth = planted(200, classes)
    rng = np.random.default_rng(1)
    at = rng.normal(0, 0.3, (classes, features.shape[1] + 1))
    loss = regression._Loss(features, truth, classes, penalty=0.1)

    def objective(flat: np.ndarray) -> float:
        weight, bias = flat.reshape(at.shape)[:, :-1], flat.reshape(at.shape)[:, -1]
        logits = features.astype(np.float64) @ weight.T + bias
        likelihood = logits[np.arange(len(truth)), truth] - np.log(np.exp(logits).sum(axis=1))
        return float(-likelihood.mean() + 0.05 * (weight**2).sum())

    value, gradient = loss(at.ravel())
    assert value == pytest.approx(objective(at.ravel()), rel=1e-6)
    for place in rng.choice(at.size, 20, replace=False):
        step = np.zeros(at.size)
        step[place] = 1e-5
        slope = (objective(at.ravel() + step) - objective(at.ravel() - step)) / 2e-5
        assert gradient[place] == pytest.approx(slope, abs=1e-5)


def test_a_class_without_examples_gets_no_share_and_its_examples_no_loss() -> None:
    features, truth = planted(400, 4)
    rest = truth != 2
    found = fit(features[rest], truth[rest], 5, 0.1)
    wanted = oracle(features[rest], truth[rest], 0.1)
    assert list(np.isneginf(found.bias)) == [False, False, True, False, True]
    assert found.weight[[0, 1, 3]] == pytest.approx(wanted.coef_, abs=0.01)
    losses = found.losses(features, truth)
    assert losses.shape == (rest.sum(),)
    places = np.searchsorted([0, 1, 3], truth[rest])
    expected = -wanted.predict_log_proba(features[rest])[np.arange(len(places)), places]
    assert losses == pytest.approx(expected, abs=0.02)


def test_a_fit_that_begins_where_another_ended_comes_to_the_same_end_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = planted(1000, 6)
    calls: list[int] = []
    original = regression._Loss.__call__
    monkeypatch.setattr(regression._Loss, "__call__", lambda self, flat: calls.append(1) or original(self, flat))
    cold = fit(features, truth, 6, 1.0)
    steps = len(calls)
    warm = fit(features, truth, 6, 1.0, fit(features, truth, 6, 0.9))
    start = fit(features, truth, 6, 1.0, cold)
    assert warm.weight == pytest.approx(cold.weight, abs=0.02)
    assert start.weight == pytest.approx(cold.weight, abs=1e-3)
    calls.clear()
    fit(features, truth, 6, 1.0, cold)
    assert len(calls) < steps / 2


def test_one_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "_MOST_STEPS", 2)
    assert not fit(*planted(500, 5), 5, 1.0).converged


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = planted(3000, 40)
    there = fit(features, truth, 40, 0.1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert there.weight == pytest.approx(fit(features, truth, 40, 0.1).weight, abs=1e-3)
