"""Images that bfloat16 leaves in doubt are computed again; none of it depends on whether the processor multiplies so."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.numerics import smooth_pixels
from trapline.model import checkpoint
from trapline.model.boundaries import Boundaries, log_ratios
from trapline.model.checked import CheckedPredictor, make_predictor
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
    found = make_predictor(checkpoint.load(str(model)), "cpu", "checked", 4, ("stage4",), notes.append, bound=bound)
    assert isinstance(found, CheckedPredictor)
    return found


@pytest.fixture(scope="module")
def distances(tiny_model: Path, plain: dict[str, Predictions]) -> npt.NDArray[np.float64]:
    """To each class's boundary, by bfloat16, [N, C]."""
    probabilities = plain["bf16"].probabilities
    best = probabilities.argmax(axis=1)
    return Boundaries(checkpoint.load(str(tiny_model)).network).shifts(log_ratios(probabilities, best), best)


def values(predictions: Predictions, rows: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.floating]]:
    return [getattr(predictions, part)[rows] for part in PARTS] + [predictions.features["stage4"][rows]]


def test_images_in_doubt_are_those_of_fp32_and_the_others_those_of_bf16(
    tiny_model: Path,
    pixels: npt.NDArray[np.uint8],
    plain: dict[str, Predictions],
    distances: npt.NDArray[np.float64],
) -> None:
    bound = float(np.median(distances.min(axis=1)))  # half of the images are closer
    found = checked(tiny_model, bound)(pixels)
    doubtful = distances.min(axis=1) < bound
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


def test_images_that_are_carried_too_far_widen_the_bound_for_their_batch_and_all_later_ones(
    tiny_model: Path,
    pixels: npt.NDArray[np.uint8],
    plain: dict[str, Predictions],
    distances: npt.NDArray[np.float64],
) -> None:
    notes: list[str] = []
    surest = distances.min(axis=1).argmax()
    narrow = checked(tiny_model, distances[surest].min() / 2, notes)
    # As if bfloat16 were so far off that the surest image is between two classes.
    probabilities, nearest = plain["bf16"].probabilities[surest], distances[surest].argmin()
    bias = narrow.fast.network.get_parameter("classifier.bias").data
    bias[probabilities.argmax()] -= float(np.log(probabilities.max() / probabilities[nearest]))
    for _ in range(2):
        found = narrow(pixels)
        assert narrow.bound > distances[surest].min()
        again = narrow.distances(narrow.fast(pixels).probabilities).min(axis=1) < narrow.bound
        assert again[surest]
        assert found.in_bf16 is not None
        np.testing.assert_array_equal(found.in_bf16, ~again)
        np.testing.assert_allclose(found.probabilities[again], plain["fp32"].probabilities[again], rtol=0, atol=1e-4)
    (note,) = notes
    assert note.endswith("more of them are computed twice, to be safe")


def test_what_is_no_number_is_in_doubt(tiny_model: Path, pixels: npt.NDArray[np.uint8]) -> None:
    broken = checked(tiny_model, 0.5, [])
    broken.fast.network.get_parameter("classifier.bias").data[0] = torch.nan
    assert np.isfinite(broken(pixels).probabilities).all()
