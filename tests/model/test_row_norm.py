"""The norm in Triton's interpreter against torch's, of rows that a kernel holds with channels to spare."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.numerics import assert_as_exact
from tests.support.triton_kernels import interpret

pytest.importorskip("triton", reason="torch comes without Triton here")

import triton
import triton.language as tl

from trapline.model.row_norm import row_norm

HELD = 32  # channels, of rows with fewer


@triton.jit  # type: ignore[untyped-decorator]
def norm_kernel(x_ptr, out_ptr, weight_ptr, bias_ptr, eps, width: tl.constexpr, held: tl.constexpr):  # type: ignore[no-untyped-def]
    """Norm 16 rows."""
    place = tl.arange(0, 16)[:, None] * held + tl.arange(0, held)[None, :]
    normed = row_norm(tl.load(x_ptr + place), tl.arange(0, held), weight_ptr, bias_ptr, eps, width)
    tl.store(out_ptr + place, normed)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the norm of x [16, C], with what the kernel holds beside it: [16, HELD]."""
    padded, out = F.pad(x, (0, HELD - x.shape[1])), torch.empty(len(x), HELD)
    norm_kernel[(1,)](padded, out, weight, bias, eps, x.shape[1], HELD)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.0, 300.0])  # a variance out of the sum of squares would be lost beside its square
def test_channels_that_are_there_are_normed_and_the_others_stay_0(mean: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, weight, bias = mean + torch.randn(16, 24), torch.randn(24), torch.randn(24)
    (out,) = interpret("tests.model.test_row_norm", "norm", [(x, weight, bias, 1e-6)], tmp_path)
    peer = F.layer_norm(x, (24,), weight, bias, 1e-6)
    truth = F.layer_norm(x.double(), (24,), weight.double(), bias.double(), 1e-6)
    assert_as_exact(out[:, :24], peer, truth)
    assert torch.equal(out[:, 24:], torch.zeros(16, HELD - 24))
