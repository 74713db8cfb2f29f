from pathlib import Path

import numpy as np
import torch

from trapline.model import checkpoint
from trapline.model.architecture import Architecture
from trapline.model.boundaries import Boundaries, log_ratios
from trapline.model.hiera import Hiera


def network(tiny_model: Path) -> Hiera:
    return checkpoint.load(str(tiny_model)).network


def test_so_far_along_the_normal_two_logits_are_equal(tiny_model: Path) -> None:
    net = network(tiny_model)
    rows = net.get_parameter("classifier.weight").double()
    embeddings = torch.randn(7, rows.shape[1], generator=torch.Generator().manual_seed(0)).double()
    logits = net.classifier.double()(embeddings)
    best = logits.argmax(dim=1)
    ratios = log_ratios(logits.softmax(1).float().numpy(), best.numpy())
    distances = torch.from_numpy(Boundaries(net).shifts(ratios, best.numpy()))
    for image, first in enumerate(best):
        assert distances[image, first] == torch.inf
        for other in range(len(rows)):
            if other != first:
                normal = torch.nn.functional.normalize(rows[other] - rows[first], dim=0)
                there = net.classifier(embeddings[image] + distances[image, other] * normal)
                assert abs(there[other] - there[first]) < 1e-5


def test_classes_that_are_never_told_apart_have_no_boundary(tiny_model: Path) -> None:
    net = network(tiny_model)
    net.get_parameter("classifier.weight")[1] = net.get_parameter("classifier.weight")[3]
    shifts = Boundaries(net).shifts(np.full((1, 5), 0.5), np.array([3]))
    assert np.isinf(shifts).tolist() == [[False, True, False, True, False]]


def test_a_head_with_a_hidden_layer_has_its_boundaries_behind_it() -> None:
    architecture = Architecture((1, 1, 1, 1), embed_dim=16, num_heads=1, abs_win_pos_embed=True, mlp_head=True)
    net = Hiera(architecture, 5, (64, 64))
    rows = net.get_parameter("classifier.3.weight").detach().double().numpy()
    shifts = Boundaries(net).shifts(np.ones((1, 5)), np.array([2]))
    np.testing.assert_allclose(shifts[0, 0], 1 / np.linalg.norm(rows[0] - rows[2]))


def test_a_probability_of_nothing_is_infinitely_far(tiny_model: Path) -> None:
    ratios = log_ratios(np.array([[0.25, 0.0, 0.75]], np.float32), np.array([2]))
    np.testing.assert_allclose(ratios, [[-np.log(3), -np.inf, 0]])
