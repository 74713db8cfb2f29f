"""The Triton kernel against the plain block: by Triton's interpreter, and compiled ahead for GPUs that are not there."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.numerics import assert_as_exact
from tests.support.triton_kernels import GPUS, assert_fit, compile_ahead, interpret
from trapline.model.blocks import attend

pytest.importorskip("triton", reason="torch comes without Triton here")

from trapline.model.window_kernel import constants

# Windows, tokens, channels, heads: as in the first two stages of Hiera-Base, and smaller, with a program half empty.
SHAPES = [(3, 64, 96, 1), (13, 16, 192, 2), (63, 4, 32, 2)]


def plain(x: Tensor, offset: Tensor | None, norm: Any, qkv: Any, proj: Any, heads: int) -> Tensor:
    x = x if offset is None else x + offset
    attended: Tensor = proj(attend(qkv(norm(x)), heads, pool=False, windowed=True))
    return x + attended


def case(shape: tuple[int, int, int, int], dtype: torch.dtype, with_offset: bool) -> tuple[Any, ...]:
    windows, tokens, width, heads = shape
    norm, qkv, proj = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 3 * width), nn.Linear(width, width)
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias, 0, 0.2)
    x = torch.randn(1, windows, tokens, width, dtype=dtype)
    offset = torch.randn(width, dtype=dtype) if with_offset else None
    return x, offset, *(layer.to(dtype).requires_grad_(False) for layer in (norm, qkv, proj)), heads


def test_interpreted_it_computes_the_first_half_of_a_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    types = (torch.float32, torch.float16)  # the interpreter multiplies bfloat16 as the integers that it is stored as
    cases = [case(shape, dtype, some) for shape in SHAPES for dtype in types for some in (False, True)]
    found = interpret("trapline.model.window_kernel", "attend_windows", cases, tmp_path)
    for each, out in zip(cases, found, strict=True):
        x, offset, *layers, heads = each
        peer = plain(*each)
        exact = [layer.double() for layer in layers]
        truth = plain(x.double(), None if offset is None else offset.double(), *exact, heads)
        assert_as_exact(out, peer, truth, f"{list(x.shape)} in {x.dtype}")


@pytest.mark.slow
def test_it_compiles_for_gpus_with_tensor_cores(tmp_path: Path) -> None:
    jobs = [(gpu, constants(width, tokens, heads)) for gpu in GPUS for _, tokens, width, heads in SHAPES[:2]]
    types = {"rows": "i32", "eps": "fp32"}
    assert_fit(jobs, compile_ahead("trapline.model.window_kernel", "window_kernel", types, jobs, tmp_path))
