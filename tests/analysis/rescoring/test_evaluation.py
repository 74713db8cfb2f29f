import io

import numpy as np
import pytest
from PIL import Image

from trapline.analysis.rescoring.calibration import reliability
from trapline.analysis.rescoring.evaluation import (
    confusion_png,
    evaluate,
    evaluation_json,
    reliability_json,
    reliability_png,
)

LABELLED = ["owl", "owl", "owl", "robin", "robin", "wren"]
PREDICTED = ["owl", "owl", "robin", "robin", "owl", "heron"]


def test_figures_are_those_of_a_small_table_by_hand() -> None:
    found = evaluate(LABELLED, PREDICTED)
    assert found.species == ("heron", "owl", "robin", "wren")
    assert found.confusion.tolist() == [[0, 0, 0, 0], [0, 2, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert found.accuracy == pytest.approx(3 / 6)
    assert found.mean_recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    figures = evaluation_json(found)["species"]
    assert figures["owl"] == {"images": 3, "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3)}
    assert figures["heron"] == {"images": 0, "precision": 0, "recall": None}
    assert figures["wren"] == {"images": 1, "precision": None, "recall": 0}


def test_bins_without_images_are_left_out_of_the_report() -> None:
    found = reliability_json(reliability(np.log(np.array([[0.9, 0.1]], np.float32)), np.array([0])))
    (only,) = found["bins"]
    assert (only["above"], only["to"], only["images"], only["accuracy"]) == (13 / 15, 14 / 15, 1, 1)


@pytest.mark.parametrize("species", [4, 60])
def test_a_confusion_is_drawn_darker_the_larger_the_share(species: int) -> None:
    names = [f"species {number:02}" for number in range(species)]
    right = pixels(confusion_png(evaluate(names * 4, names * 4), "all right"))
    spread = [names[(number + shift) % species] for shift in range(4) for number in range(species)]
    wrong = pixels(confusion_png(evaluate(names * 4, spread), "a quarter right"))
    dark = [int(((image[..., 2] - image[..., 0] > 60) & (image[..., 0] < 30)).sum()) for image in (right, wrong)]
    assert dark[0] > dark[1] + 1000
    assert max(right.shape) < 2500


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)


def test_a_reliability_diagram_is_drawn() -> None:
    values, truth = np.random.default_rng(0).normal(0, 3, (500, 4)).astype(np.float32), np.zeros(500, int)
    before, after = reliability(values, truth), reliability(values, truth, 3.0)
    picture = Image.open(io.BytesIO(reliability_png(before, after, 3.0, "500 images")))
    assert picture.format == "PNG"
    assert np.asarray(picture.convert("L")).std() > 20
