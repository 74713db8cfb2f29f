from pathlib import Path

import numpy as np
import pytest

from tests.support.numerics import smooth_pixels
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.rounding import made_up_pictures, measure_bound, rounded_up, typical_rounding


@pytest.fixture
def model(tiny_model: Path) -> Model:
    return checkpoint.load(str(tiny_model))


def test_the_bound_is_the_same_each_time_and_leaves_the_model_as_it_is(model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    assert measure_bound(model) == measure_bound(model) > 0
    after = model.network.state_dict()
    assert all((after[name] == tensor).all() and after[name].dtype == tensor.dtype for name, tensor in before.items())


def test_the_bound_does_not_follow_the_scale_of_the_logits(model: Model) -> None:
    before = measure_bound(model)
    for name in ("weight", "bias"):
        model.network.get_parameter(f"classifier.{name}").mul_(4)
    assert measure_bound(model) == before


def test_made_up_pictures_stand_for_others(model: Model) -> None:
    made_up, others = (
        typical_rounding(model, pictures) for pictures in (made_up_pictures(64, (64, 64)), smooth_pixels())
    )
    assert others < 2 * made_up


def test_made_up_pictures_are_the_same_everywhere_and_as_varied_as_photographs() -> None:
    pictures = made_up_pictures(16, (64, 96))
    assert (pictures.shape, pictures.dtype) == ((16, 3, 64, 96), np.uint8)
    np.testing.assert_array_equal(pictures[:4], made_up_pictures(4, (64, 96)))
    levels, contrasts = pictures.mean(axis=(1, 2, 3)), pictures.std(axis=(1, 2, 3))
    assert levels.min() < 70
    assert levels.max() > 160
    assert contrasts.min() < 20
    assert contrasts.max() > 60
    neighbours = np.abs(np.diff(pictures.astype(int), axis=3)).mean()
    assert neighbours < contrasts.mean() / 2  # structure, and not noise


@pytest.mark.parametrize("scale", [1e-3, 0.7, 1.0, 40.0])
def test_rounding_up_is_by_at_most_a_fifth_and_forgets_the_last_bits(scale: float) -> None:
    bounds = [rounded_up(scale * (1 + step / 1000)) for step in range(100)]
    assert len(set(bounds)) <= 2
    assert all(
        scale * (1 + step / 1000) <= bound <= scale * (1 + step / 1000) * 1.2 for step, bound in enumerate(bounds)
    )
    assert rounded_up(0.0) == 0.0
