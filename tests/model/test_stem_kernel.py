"""The stem as one Triton kernel against `Hiera`'s own: by Triton's interpreter, and compiled ahead."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.numerics import assert_as_exact
from tests.support.triton_kernels import GPUS, assert_fit, compile_ahead, interpret
from trapline.model.architecture import Architecture
from trapline.model.hiera import Hiera

pytest.importorskip("triton", reason="torch comes without Triton here")

from trapline.model.stem_kernel import PixelStem, constants

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
# Images, height and width, channels, whether windows share an embedding: as in Hiera-Base, and where padding fills more.
SHAPES = [(1, (64, 96), 96, True), (2, (32, 32), 24, False), (3, (64, 32), 16, True)]


def stem_of(size: tuple[int, int], channels: int, shared: bool) -> Hiera:
    """A network whose stem and position matter, and of which only they do."""
    network = Hiera(Architecture((1, 1, 1, 1), channels, 1, abs_win_pos_embed=shared), 0, size).eval()
    network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.startswith(("stem", "pos_embed")):
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.05))
    return network


def as_it_is(network: Hiera, pixels: Tensor, dtype: torch.dtype) -> Tensor:
    mean, std = (each.view(3, 1, 1).to(torch.promote_types(dtype, torch.float32)) for each in (MEAN, STD))
    images = (pixels.to(mean.dtype) / 255 - mean) / std
    return copy.deepcopy(network).to(dtype).tokens(images.to(dtype))


@torch.inference_mode()
def test_interpreted_it_gives_the_tokens_of_the_stem(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cases = []
    for count, size, channels, shared in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            network = stem_of(size, channels, shared).to(dtype)
            pixels = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)
            cases.append((network, pixels, PixelStem(network, MEAN, STD)))
    found = interpret(
        "trapline.model.stem_kernel", "PixelStem.forward", [(stem, pixels) for _, pixels, stem in cases], tmp_path
    )
    for (network, pixels, _), tokens in zip(cases, found, strict=True):
        dtype = network.get_parameter("stem.proj.weight").dtype
        assert tokens.dtype == dtype
        peer, truth = as_it_is(network, pixels, dtype), as_it_is(network, pixels, torch.float64)
        assert_as_exact(tokens, peer, truth, f"{list(pixels.shape)} in {dtype}")


def test_images_of_another_size_are_refused() -> None:
    stem = PixelStem(stem_of((32, 64), 16, True), MEAN, STD)
    with pytest.raises(ValueError, match="make one for their size"):
        stem(torch.zeros(1, 3, 64, 32, dtype=torch.uint8))


@pytest.mark.slow
def test_it_compiles_for_gpus_with_tensor_cores(tmp_path: Path) -> None:
    types = {"pixels_ptr": "*u8", "weight_ptr": "*fp16", "height": "i32", "width": "i32"}
    jobs = [(gpu, constants(96)) for gpu in GPUS]
    assert_fit(jobs, compile_ahead("trapline.model.stem_kernel", "stem_kernel", types, jobs, tmp_path))
