"""Images that bfloat16 leaves in doubt are computed again; none of it depends on whether the processor multiplies so."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.numerics import smooth_pixels
from trapline.model import checkpoint
from trapline.model.checked import CheckedPredictor, log_ratio, predictor
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions

PARTS = ("probabilities", "energy", "embedding")


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    return smooth_pixels(23)


@pytest.fixture(scope="module")
def plain(tiny_model: Path, pixels: npt.NDArray[np.uint8]) -> dict[str, Predictions]:
    """What the two precisions give."""
    precisions = {"fp32", "bf16"}
    return {
        precision: Predictor(checkpoint.load(str(tiny_model)), "cpu", precision, 4, ("stage4",))(pixels)  # type: ignore[arg-type]
        for precision in precisions
    }


def checked(model: Path, bound: float, notes: list[str] | None = None) -> CheckedPredictor:
    notes = [] if notes is None else notes
    found = predictor(checkpoint.load(str(model)), "cpu", "checked", 4, ("stage4",), notes.append, bound=bound)
    assert isinstance(found, CheckedPredictor)
    return found


def middle(predictions: Predictions) -> float:
    """A bound that half of the images are below."""
    return float(np.median(log_ratio(predictions.probabilities)))


def values(predictions: Predictions, rows: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.floating]]:
    return [getattr(predictions, part)[rows] for part in PARTS] + [predictions.features["stage4"][rows]]


def test_images_in_doubt_are_those_of_fp32_and_the_others_those_of_bf16(
    tiny_model: Path, pixels: npt.NDArray[np.uint8], plain: dict[str, Predictions]
) -> None:
    bound = middle(plain["bf16"])
    found = checked(tiny_model, bound)(pixels)
    doubtful = log_ratio(plain["bf16"].probabilities) < bound
    assert found.in_bf16 is not None
    np.testing.assert_array_equal(found.in_bf16, ~doubtful)
    for ours, theirs in zip(values(found, ~doubtful), values(plain["bf16"], ~doubtful), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Other images are in their passes: the order of sums may differ.
    for ours, exact, fast in zip(
        values(found, doubtful), values(plain["fp32"], doubtful), values(plain["bf16"], doubtful), strict=True
    ):
        error, of_bf16 = (np.abs(each.astype(np.float64) - exact).max() for each in (ours, fast))
        assert error < of_bf16 / 4


@pytest.mark.parametrize(("bound", "all_again"), [(0.0, False), (1e9, True)])
def test_none_or_all_may_be_in_doubt(
    tiny_model: Path, pixels: npt.NDArray[np.uint8], bound: float, all_again: bool
) -> None:
    found = checked(tiny_model, bound)(pixels)
    assert found.in_bf16 is not None
    assert set(found.in_bf16.tolist()) == {not all_again}


def test_a_bound_that_proves_wrong_is_not_relied_on(
    tiny_model: Path, pixels: npt.NDArray[np.uint8], plain: dict[str, Predictions]
) -> None:
    notes: list[str] = []
    apart = log_ratio(plain["bf16"].probabilities)
    surest = apart.argmax()
    broken = checked(tiny_model, apart[surest] / 2, notes)
    # As if bfloat16 were so far off that the surest image is between two classes.
    best = plain["bf16"].probabilities[surest].argmax()
    broken.fast.network.get_parameter("classifier.bias").data[best] -= apart[surest]
    for _ in range(2):
        found = broken(pixels)
        assert found.in_bf16 is None
        np.testing.assert_allclose(found.probabilities, plain["fp32"].probabilities, rtol=0, atol=1e-4)
    (note,) = notes
    assert "where --precision checked expects at most" in note
    assert note.endswith("this worker goes on in fp32, slower")


def test_what_is_no_number_is_in_doubt(tiny_model: Path, pixels: npt.NDArray[np.uint8]) -> None:
    broken = checked(tiny_model, 0.5, [])
    broken.fast.network.get_parameter("classifier.bias").data[0] = torch.nan
    assert np.isfinite(broken(pixels).probabilities).all()


def test_the_ratio_is_that_of_the_two_best() -> None:
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]], np.float32)
    np.testing.assert_allclose(log_ratio(probabilities), [np.log(2), 0, np.inf], rtol=1e-6)
