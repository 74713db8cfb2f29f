"""A faster Hiera for CPUs, with the same answers up to rounding.

Apart from the matrix products, passes over memory cost the most time: a GELU, a residual. oneDNN does both while the
product is still in registers (in float32, even if the weights are bfloat16), and takes weights in a blocked layout of
its own. By default torch gives float32 products to MKL, which uses half the vector width on processors not from Intel.
"""

import copy
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from trapline.model.blocks import Block, max_pool, sequences
from trapline.model.hiera import Hiera

# oneDNN's fused products, which torch.compile uses; they have no public name, hence `available`.
_LINEAR = ("_linear_pointwise", "_reorder_linear_weight")


def available() -> bool:
    """Return whether this build of torch has the operators."""
    return torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in _LINEAR)


def fuse(network: Hiera) -> Hiera:
    """Return a network for inference on a CPU only, which shares everything except the blocks with the given one.

    Args:
        network: in eval mode, with one dtype in its body.
    """
    stages = {
        name: nn.Sequential(*(FusedBlock(cast(Block, block)) for block in stage.children()))
        for name, stage in network.body.named_children()
    }
    twin = copy.copy(network)
    twin._modules = network._modules | {"body": nn.Sequential(OrderedDict(stages))}
    return twin


class FusedBlock(nn.Module):
    """`Block` with seven passes over memory."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.pool, self.heads, self.windowed = block.pool, block.attn.heads, block.attn.windowed
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.proj = None if block.proj is None else _Linear(block.proj)
        self.qkv, self.attn_proj = _Linear(block.attn.qkv), _Linear(block.attn.proj)
        self.expand, self.contract = _Linear(cast(nn.Linear, block.mlp[0])), _Linear(cast(nn.Linear, block.mlp[3]))

    def forward(self, x: Tensor) -> Tensor:
        """Return what `Block` returns."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
        if self.pool:
            x = max_pool(x)
        x = self.attn_proj.added_to(x, self._attend(self.qkv(normed)))
        return self.contract.added_to(x, self.expand.gelu(self.norm2(x)))

    def _attend(self, qkv: Tensor) -> Tensor:
        """Compute `blocks.attend` by plain products, head by head.

        In bfloat16 torch's fused kernel is slower (128 against 229 GFLOP/s over 576 tokens, a third of the machine's
        rate); over the few tokens of a window it is slower in both precisions.
        """
        q, k, v = sequences(qkv, pool=self.pool, windowed=self.windowed)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        nothing = q.new_empty(1, 1, 1)
        width = q.shape[-1] // self.heads
        for start in range(0, q.shape[-1], width):
            head = slice(start, start + width)
            keys = k[..., head]
            if keys.dtype == torch.bfloat16:
                keys = keys.contiguous()  # else oneDNN copies their transpose: 25 ms against 19 in the first stage
            scores = torch.baddbmm(nothing, q[..., head], keys.mT, beta=0, alpha=width**-0.5)
            out[..., head] = torch.bmm(scores.softmax(dim=-1), v[..., head])
        return out.view(*qkv.shape[:2], -1, q.shape[-1])


class _Linear:
    """A linear layer by oneDNN, fused with the operation that follows it."""

    def __init__(self, linear: nn.Linear) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], ""))

    def gelu(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "none"))

    def added_to(self, other: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add"))
