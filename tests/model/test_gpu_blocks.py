"""Blocks with merged steps against the plain ones, on a CPU: what they compute. How fast they are, only a GPU tells."""

import copy
from itertools import product
from pathlib import Path

import pytest
import torch

from tests.support.archives import RGB_STATS
from tests.support.numerics import ENOUGH, assert_as_exact
from tests.support.triton_kernels import interpret
from trapline.model.architecture import STAGES, Architecture
from trapline.model.gpu_blocks import Fusions, add_product, fuse
from trapline.model.hiera import Hiera

CASES = [Fusions(gelu=gelu, residual=residual) for gelu, residual in product([False, True], repeat=2)]


@pytest.fixture(scope="module")
def network() -> Hiera:
    """A network whose every layer matters, with two blocks in the stages that pool."""
    torch.manual_seed(0)
    network = Hiera(Architecture((2, 2, 2, 1), 16, 1, abs_win_pos_embed=True), 7, (64, 64)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else 0.05))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fusions", CASES, ids=str)
@torch.inference_mode()
def test_the_answers_are_those_of_the_plain_network(network: Hiera, fusions: Fusions, dtype: torch.dtype) -> None:
    plain = copy.deepcopy(network).to(dtype)
    plain.features.float()
    plain.classifier.float()
    images = torch.randn(ENOUGH, 3, 64, 64).to(dtype)
    truth = copy.deepcopy(network).double().predict(images.double(), STAGES)
    peer, found = plain.predict(images, STAGES), fuse(plain, fusions).predict(images, STAGES)
    if fusions.gelu and dtype == torch.float32:  # another function, within 4.7e-4 of the exact one
        assert torch.cosine_similarity(found.embedding, truth.embedding).min() >= 0.99995
        for stage in STAGES:
            error = found.features[stage] - truth.features[stage]
            assert error.norm() / truth.features[stage].norm() < 1e-2
        return
    assert_as_exact(found.logits, peer.logits, truth.logits, "logits")
    assert_as_exact(found.embedding, peer.embedding, truth.embedding, "embedding")
    for stage in STAGES:
        assert_as_exact(found.features[stage], peer.features[stage], truth.features[stage], stage)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 455])
@torch.inference_mode()
def test_every_size_of_batch_gives_the_answers_of_its_images(network: Hiera, count: int) -> None:
    fused, images = fuse(network, Fusions(residual=True)), torch.randn(count, 3, 64, 64)
    kept = images.clone()
    first, again, expected = fused(images), fused(images), network(images)
    assert torch.equal(images, kept)
    assert torch.equal(first, again)  # nothing that a block adds in place is left for the next pass
    torch.testing.assert_close(first, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_product_is_added_in_place_under_compilation_too() -> None:
    out, x, weight = torch.randn(2, 5, 6), torch.randn(2, 5, 3), torch.randn(6, 3)
    expected = out + x @ weight.t()

    def add(out: torch.Tensor) -> torch.Tensor:
        kept = out * 1
        add_product(kept, x, weight)
        return kept

    torch.testing.assert_close(torch.compile(add, fullgraph=True, backend="aot_eager")(out), expected)
    torch.testing.assert_close(add(out), expected)


def test_whole_kernels_stand_in_narrow_blocks() -> None:
    """Attention where blocks attend within windows and keep their width, and the MLP in all."""
    network = Hiera(Architecture((2, 3, 2, 1), 96, 1, abs_win_pos_embed=True), 5, (64, 64)).eval()
    fused = fuse(network, Fusions(windows=True, mlp=True))
    assert [[(block.whole, block.whole_mlp) for block in stage] for stage in fused.body] == [
        [(True, True), (True, True)], [(False, True), (True, True), (True, True)], [(False, False)] * 2,
        [(False, False)],
    ]  # fmt: skip


@pytest.mark.slow
@torch.inference_mode()
def test_interpreted_a_network_of_whole_kernels_gives_the_answers_of_the_plain_one(
    network: Hiera, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="torch comes without Triton here")
    images = torch.randn(3, 3, 64, 64)
    truth, peer = copy.deepcopy(network).double().predict(images.double(), STAGES), network.predict(images, STAGES)
    cases = [(fuse(network, Fusions(False, some, True, True)), images, STAGES) for some in (False, True)]
    for found in interpret("trapline.model.hiera", "Hiera.predict", cases, tmp_path):
        assert_as_exact(found.embedding, peer.embedding, truth.embedding, "embedding")
        for stage in STAGES:
            assert_as_exact(found.features[stage], peer.features[stage], truth.features[stage], stage)


@pytest.mark.gpu
def test_on_a_gpu_a_network_with_all_fusions_gives_the_answers_of_the_plain_one() -> None:
    from trapline.model.stem_kernel import PixelStem

    torch.manual_seed(0)
    network = Hiera(Architecture((2, 3, 2, 1), 96, 1, abs_win_pos_embed=True), 7, (64, 64)).eval().to("cuda")
    network.requires_grad_(False)
    mean, std = (torch.tensor(values, device="cuda").view(3, 1, 1) for values in RGB_STATS.values())
    half = copy.deepcopy(network).to(torch.bfloat16)
    fused, stem = fuse(half, Fusions(True, True, True, True)), PixelStem(half, mean, std)
    with torch.inference_mode():
        for count in (1, 2, 63, 64, 455):
            pixels = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, device="cuda")
            truth = network.embedding((pixels / 255 - mean) / std)
            found = fused.predict_tokens(stem(pixels)).embedding.float()
            assert torch.cosine_similarity(found, truth).min() >= 0.99995
