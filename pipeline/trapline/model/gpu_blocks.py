"""A Hiera for GPUs whose blocks pass over memory less often, with the same answers up to rounding.

Nothing here has been measured on a GPU, so a predictor does not use it: `fuse` is for benchmarks until then. A compiled
network moves 561 MB for an image; with GELU and residual in the products 421; with the first two stages in kernels of
their own less still (`jobs/benchmark/roofline.py` has the shapes).
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trapline.model.blocks import Block, attend, max_pool
from trapline.model.hiera import Hiera

# Channels of a block whose halves are one kernel each: a program holds its tokens whole, in registers. Of Hiera-Base
# these are the first two stages, which have 19 % of the FLOPs and 45 % of the bytes.
WIDEST = 256


@dataclass(frozen=True)
class Fusions:
    """Which steps are merged.

    Attributes:
        gelu: the GELU, in the epilogue of the product before it; its tanh form, at most 4.7e-4 from the exact one.
        residual: the sum with the block's input, as what a product adds to, in place.
        windows: norm, attention within windows and residual as one Triton kernel, in blocks that keep their width.
        mlp: norm, MLP and residual as one Triton kernel; with `gelu`, in its tanh form. Both in narrow blocks only.
    """

    gelu: bool = False
    residual: bool = False
    windows: bool = False
    mlp: bool = False


def fuse(network: Hiera, fusions: Fusions) -> Hiera:
    """Return a network for inference, which shares everything but the blocks with the given one.

    Args:
        network: in eval mode.
        fusions: which steps are merged.
    """
    stages = {}
    for name, stage in network.body.named_children():
        blocks, offset = [], None
        children = [cast(Block, block) for block in stage.children()]
        for block in children:
            fused = FusedBlock(block, fusions, offset, last=block is children[-1])
            blocks.append(fused)
            offset = fused.offset_out
        stages[name] = nn.Sequential(*blocks)
    twin = copy.copy(network)
    twin._modules = network._modules | {"body": nn.Sequential(OrderedDict(stages))}
    return twin


class FusedBlock(nn.Module):
    """`Block`, with some of its steps merged.

    A product that adds to a matrix has no place for a bias. Biases of the residual are therefore left out between the
    blocks of a stage, and added, as one constant for each channel, where the tokens are read: by the norms, whose
    kernels have them in registers.

    Args:
        block: whose weights it has.
        fusions: which steps are merged.
        offset: [C], what is missing in the input; None for nothing.
        last: whether the output must lack nothing.

    Attributes:
        offset_out: [C], what is missing in the output; None for nothing.
    """

    offset_in: Tensor | None
    offset_middle: Tensor | None
    offset_out: Tensor | None

    def __init__(self, block: Block, fusions: Fusions, offset: Tensor | None, *, last: bool) -> None:
        super().__init__()
        self.block = block
        self.fusions = fusions
        self.expand, self.contract = cast(nn.Linear, block.mlp[0]), cast(nn.Linear, block.mlp[3])
        narrow = self.contract.out_features <= WIDEST
        self.whole = fusions.windows and narrow and block.attn.windowed and block.proj is None and not block.pool
        self.whole_mlp = fusions.mlp and narrow
        self.last = last
        middle = out = None
        if fusions.residual:
            kept = offset if block.proj is None else None
            middle = None if self.whole else _sum(kept, block.attn.proj.bias)
            out = None if self.whole_mlp else _sum(middle, self.contract.bias)
        self.register_buffer("offset_in", offset, persistent=False)
        self.register_buffer("offset_middle", middle, persistent=False)
        self.register_buffer("offset_out", out, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what `Block` returns; less `offset_out`, but for the last block."""
        x = self._attention(x)
        if self.whole_mlp:
            # Triton comes with torch's builds for GPUs only.
            from trapline.model.mlp_kernel import add_mlp

            return add_mlp(x, self.offset_middle, self.block.norm2, self.expand, self.contract, self.fusions.gelu)
        hidden = self._hidden(self.block.norm2(_plus(x, self.offset_middle)))
        if not self.fusions.residual:
            return x + F.linear(hidden, self.contract.weight, self.contract.bias)
        add_product(x, hidden, self.contract.weight)
        return _plus(x, self.offset_out) if self.last else x

    def _attention(self, x: Tensor) -> Tensor:
        block, attn = self.block, self.block.attn
        if self.whole:
            from trapline.model.window_kernel import attend_windows

            return attend_windows(x, self.offset_in, block.norm1, attn.qkv, attn.proj, attn.heads)
        normed = block.norm1(_plus(x, self.offset_in))
        if block.proj is not None:
            x = block.proj(normed)
        if block.pool:
            x = max_pool(x)
        attended = attend(attn.qkv(normed), attn.heads, pool=attn.pool, windowed=attn.windowed, kernel=attn.kernel)
        if not self.fusions.residual:
            return x + F.linear(attended, attn.proj.weight, attn.proj.bias)
        add_product(x, attended, attn.proj.weight)
        return x

    def _hidden(self, x: Tensor) -> Tensor:
        weight, bias = self.expand.weight, self.expand.bias
        if not self.fusions.gelu:
            return F.gelu(F.linear(x, weight, bias))
        if not x.is_cuda:  # there, torch would take the exact form
            return F.gelu(F.linear(x, weight, bias), approximate="tanh")
        hidden: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
        return hidden.view(*x.shape[:-1], -1)


# As an operator of its own, so that torch.compile keeps it in place: of `addmm_` it makes a copy and a sum.
@torch.library.custom_op("trapline::add_product", mutates_args={"out"})
def add_product(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add the product of x [..., K] and a layer's weight [C, K] to `out` [..., C], which is contiguous."""
    out.view(-1, out.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())


def _sum(offset: Tensor | None, bias: Tensor) -> Tensor:
    return bias.detach().clone() if offset is None else offset + bias.detach()


def _plus(x: Tensor, offset: Tensor | None) -> Tensor:
    return x if offset is None else x + offset
