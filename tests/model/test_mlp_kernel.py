"""The MLP as one Triton kernel against the plain one: by Triton's interpreter, and compiled ahead."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.numerics import assert_as_exact
from tests.support.triton_kernels import GPUS, assert_fit, compile_ahead, interpret

pytest.importorskip("triton", reason="torch comes without Triton here")

from trapline.model.mlp_kernel import constants

# Windows, tokens, channels: as in the first two stages of Hiera-Base, and where the last program is half empty.
SHAPES = [(2, 64, 96), (5, 16, 192), (3, 4, 24)]


def plain(x: Tensor, offset: Tensor | None, norm: Any, expand: Any, contract: Any, tanh: bool) -> Tensor:
    x = x if offset is None else x + offset
    hidden = F.gelu(expand(norm(x)), approximate="tanh" if tanh else "none")
    out: Tensor = x + contract(hidden)
    return out


def case(shape: tuple[int, int, int], dtype: torch.dtype, with_offset: bool, tanh: bool) -> tuple[Any, ...]:
    *_, width = shape
    norm, expand, contract = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias, 0, 0.2)
    nn.init.normal_(expand.weight, 0, 0.2)  # so that the hidden layer reaches into both tails of a GELU
    x = torch.randn(1, *shape, dtype=dtype)
    offset = torch.randn(width, dtype=dtype) if with_offset else None
    return x, offset, *(layer.to(dtype).requires_grad_(False) for layer in (norm, expand, contract)), tanh


def test_interpreted_it_computes_the_second_half_of_a_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    types = (torch.float32, torch.float16)  # the interpreter multiplies bfloat16 as the integers that it is stored as
    cases = [case(shape, dtype, some, some) for shape in SHAPES for dtype in types for some in (False, True)]
    found = interpret("trapline.model.mlp_kernel", "add_mlp", cases, tmp_path)
    for each, out in zip(cases, found, strict=True):
        x, offset, *layers, tanh = each
        peer = plain(*each)
        exact = [layer.double() for layer in layers]
        truth = plain(x.double(), None if offset is None else offset.double(), *exact, tanh)
        assert_as_exact(out, peer, truth, f"{list(x.shape)} in {x.dtype}")


@pytest.mark.slow
def test_it_compiles_for_gpus_with_tensor_cores(tmp_path: Path) -> None:
    jobs = [(gpu, constants(width, tanh=False)) for gpu in GPUS for width in (96, 192)]
    types = {"rows": "i32", "eps": "fp32"}
    assert_fit(jobs, compile_ahead("trapline.model.mlp_kernel", "mlp_kernel", types, jobs, tmp_path))
