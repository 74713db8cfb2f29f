"""The variants against birder's, and the shapes that follow from them."""

import pytest
import torch
from birder.model_registry import registry

from trapline.model.architecture import STAGES, VARIANTS, Architecture
from trapline.model.hiera import Hiera


def bare(architecture: Architecture, classes: int, size: tuple[int, int]) -> Hiera:
    with torch.device("meta"):
        return Hiera(architecture, classes, size)


def test_the_variants_are_those_of_birder() -> None:
    assert VARIANTS.keys() == {name for name in registry.list_models() if name.startswith("hiera_")}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_parameters_of_birders(name: str) -> None:
    with torch.device("meta"):
        theirs = registry.net_factory(name, 7, size=(96, 96)).state_dict()
    ours = bare(VARIANTS[name], 7, (96, 96)).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("architecture", [*VARIANTS.values(), Architecture((1, 1, 1, 1), 16, 1, q_pool=2)])
def test_shapes_are_known_before_there_is_a_network(architecture: Architecture) -> None:
    output = bare(architecture, 0, (96, 64)).predict(torch.empty(1, 3, 96, 64, device="meta"), STAGES)
    assert architecture.feature_shapes((96, 64)) == {name: map_.shape[1:] for name, map_ in output.features.items()}
    assert architecture.embedding_size == output.embedding.shape[1]
