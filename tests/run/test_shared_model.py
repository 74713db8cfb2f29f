"""A model from the object store is the one that was put there, and its weights are read where they lie."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tests.support.archives import write_tiny_checkpoint
from tests.support.numerics import smooth_pixels
from trapline.model import checkpoint
from trapline.model.predict import Predictor
from trapline.run.shared_model import SharedModel

pytestmark = [
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),
]


@pytest.mark.parametrize("size", [None, (96, 64)])
def test_the_model_arrives_whole(tiny_model: Path, size: tuple[int, int] | None) -> None:
    model = checkpoint.load(str(tiny_model), size=size)
    found = SharedModel(model).load()
    for field in fields(model):
        if field.name != "network":
            assert getattr(found, field.name) == getattr(model, field.name)
    expected = model.network.state_dict()
    assert found.network.state_dict().keys() == expected.keys()
    for name, weights in found.network.state_dict().items():
        assert torch.equal(weights, expected[name])
    assert not found.network.training
    assert not any(parameter.requires_grad for parameter in found.network.parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which memory is whose")
def test_weights_lie_in_the_object_store_and_predict(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path, classes=5000)  # Ray sends what is small along with its reference
    model = checkpoint.load(str(path))
    shared = SharedModel(model)
    found = shared.load()
    spans = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if re.search(r"plasma|/dev/shm", line)
    ]
    for weights in found.network.state_dict().values():
        assert any(start <= weights.data_ptr() < end for start, end in spans)
    pixels = smooth_pixels(2)
    for precision in ("fp32", "bf16"):
        predicted = Predictor(shared.load(), "cpu", precision, 2)(pixels)  # type: ignore[arg-type]
        expected = Predictor(checkpoint.load(str(path)), "cpu", precision, 2)(pixels)  # type: ignore[arg-type]
        assert (predicted.probabilities == expected.probabilities).all()
