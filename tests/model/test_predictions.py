"""What a model hands over for a batch: arrays that agree with each other, as they are documented."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.archives import write_tiny_checkpoint
from tests.support.numerics import ENOUGH, assert_as_exact, smooth_pixels
from trapline.model import checkpoint
from trapline.model.architecture import STAGES
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions

IMAGES = ENOUGH + 3  # no multiple of the batch


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, Predictions]]:
    def of(classes: int) -> tuple[Path, Predictions]:
        path = write_tiny_checkpoint(tmp_path_factory.mktemp("model"), classes=classes)
        return path, Predictor(checkpoint.load(str(path)), "cpu", "fp32", 4, STAGES)(smooth_pixels(IMAGES))

    return of


@pytest.mark.parametrize("classes", [0, 5])
def test_every_array_has_its_documented_type_and_shape(
    classes: int, predict: Callable[[int], tuple[Path, Predictions]]
) -> None:
    path, found = predict(classes)
    architecture = checkpoint.load(str(path)).architecture
    expected: dict[str, Any] = {
        "probabilities": (np.float32, (IMAGES, classes)),
        "energy": (np.float32, (IMAGES,)),
        "embedding": (np.float32, (IMAGES, architecture.embedding_size)),
    }
    assert {field.name for field in fields(found)} == {*expected, "features", "in_bf16"}
    for name, (dtype, shape) in expected.items():
        array = getattr(found, name)
        assert (array.dtype, array.shape) == (dtype, shape), name
    shapes = architecture.feature_shapes((64, 64))
    assert {stage: (maps.dtype, maps.shape) for stage, maps in found.features.items()} == {
        stage: (np.float16, (IMAGES, *shape)) for stage, shape in shapes.items()
    }


def test_probabilities_and_energy_are_those_of_the_embedding(
    predict: Callable[[int], tuple[Path, Predictions]],
) -> None:
    path, found = predict(5)
    network = checkpoint.load(str(path)).network.eval()
    embedding = torch.from_numpy(found.embedding)
    with torch.no_grad():
        peer = network.classify(embedding)
        truth = network.double().classify(embedding.double())
    assert found.energy.std() > 0.01
    assert_as_exact(found.probabilities, peer.softmax(dim=1), truth.softmax(dim=1), "probabilities")
    assert_as_exact(found.energy, peer.logsumexp(dim=1), truth.logsumexp(dim=1), "energy")


def test_a_model_without_classifier_looks_like_no_class(predict: Callable[[int], tuple[Path, Predictions]]) -> None:
    _, found = predict(0)
    assert np.isneginf(found.energy).all()
    assert found.embedding.std(axis=0).max() > 0
