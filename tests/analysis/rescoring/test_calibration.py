import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.analysis.rescoring.calibration import BINS, fit_temperature, logits, reliability, softmax


def planted(temperature: float, images: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times as sure as the labels, which are drawn from what they say, are right."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (images, 6)).astype(np.float32)
    truth = (softmax(honest).cumsum(axis=1) > rng.random((images, 1))).argmax(axis=1)
    return honest * np.float32(temperature), truth


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_recovered(temperature: float) -> None:
    values, truth = planted(temperature)
    assert fit_temperature(values, truth) == pytest.approx(temperature, rel=0.03)


def test_it_is_recovered_from_stored_probabilities_too() -> None:
    values, truth = planted(2.5)
    stored = softmax(values)
    assert fit_temperature(logits(stored), truth) == pytest.approx(fit_temperature(values, truth), rel=1e-3)
    assert np.allclose(softmax(logits(stored), 2.5), softmax(values, 2.5), atol=1e-5)


def test_it_makes_ece_and_log_loss_small_on_other_images() -> None:
    values, truth = planted(3.0)
    others, their_truth = planted(3.0, seed=1)
    before = reliability(others, their_truth)
    after = reliability(others, their_truth, fit_temperature(values, truth))
    assert before.ece > 0.15
    assert after.ece < 0.02
    assert after.nll < before.nll


def test_ece_is_what_it_is_by_hand() -> None:
    # Two bins: 3 images at 0.9 of which 2 are right, 1 at 0.6 that is wrong.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]], np.float32)
    found = reliability(np.log(probabilities), np.array([0, 0, 0, 1]))
    assert found.ece == pytest.approx(0.75 * abs(0.9 - 2 / 3) + 0.25 * 0.6, abs=1e-6)
    assert found.images.tolist() == [0] * 8 + [1] + [0] * 4 + [3] + [0]
    assert found.nll == pytest.approx(-np.log([0.9, 0.9, 0.1, 0.4]).mean(), rel=1e-5)


def test_an_image_that_is_certain_has_its_bin() -> None:
    assert reliability(np.array([[0.0, -np.inf]], np.float32), np.array([0])).images[BINS - 1] == 1


def test_a_probability_that_was_stored_as_zero_stays_next_to_nothing() -> None:
    values = logits(np.array([[1.0, 0.0]], np.float32))
    assert np.isfinite(values).all()
    assert softmax(values)[0].tolist() == pytest.approx([1, 0], abs=1e-37)


def test_labels_that_are_always_right_end_at_the_bound() -> None:
    assert fit_temperature(np.array([[1.0, 0.0]] * 5, np.float32), np.zeros(5, int)) == pytest.approx(0.05, rel=0.01)


@given(st.floats(0.05, 20), st.integers(0, 1000))
def test_no_temperature_moves_an_image_to_another_species(temperature: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 3, (20, 5)).astype(np.float32)
    cooled = softmax(values, temperature)
    assert np.allclose(cooled.sum(axis=1), 1, atol=1e-5)
    assert (cooled[np.arange(20), values.argmax(axis=1)] == cooled.max(axis=1)).all()
