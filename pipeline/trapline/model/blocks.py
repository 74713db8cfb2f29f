"""The blocks that Hiera is built of: attention within windows, pooling, and an MLP.

Tokens are [B, windows, tokens, C], the tokens of a window in unrolled order: which of the four that a max-pooling
merges is the slowest index (see `hiera`). Parameters are named as birder names them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [N, heads, tokens, C / heads] to what is attended to, of the queries' shape."""


class Block(nn.Module):
    """A transformer block, [B, windows, tokens, C] -> [B, windows, tokens, C_out]; `pool` leaves a quarter of them."""

    def __init__(self, dim: int, dim_out: int, heads: int, *, pool: bool, windowed: bool) -> None:
        super().__init__()
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.attn = MaskUnitAttention(dim, dim_out, heads, pool=pool, windowed=windowed)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = mlp(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, windows, tokens, C_out]: attention, then an MLP, each added to its input."""
        normed = self.norm1(x)
        if self.proj is not None:
            x = self.proj(normed)
        if self.pool:
            x = max_pool(x)
        x = x + self.attn(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class MaskUnitAttention(nn.Module):
    """Attention inside each window, or over the whole image; `pool` leaves a quarter of the queries."""

    def __init__(self, dim: int, dim_out: int, heads: int, *, pool: bool, windowed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pool = pool
        self.windowed = windowed
        self.kernel: Kernel | None = None
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, windows, queries, C_out] of [B, windows, tokens, C]."""
        attended = attend(self.qkv(x), self.heads, pool=self.pool, windowed=self.windowed, kernel=self.kernel)
        out: Tensor = self.proj(attended)
        return out


class AttentionPool(nn.Module):
    """One learnt query that attends to all tokens, [B, tokens, D] -> [B, D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.empty(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim)
        nn.init.trunc_normal_(self.latent, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, D]: attention, then an MLP added to it."""
        q = self.q(self.latent).expand(len(x), -1, -1)
        k, v = self.kv(x).chunk(2, dim=-1)
        x = self.proj(_attend(q, k, v, self.heads)).squeeze(1)
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class MeanPool(nn.Module):
    """The mean of all tokens, [B, tokens, D] -> [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean [B, D]."""
        return x.mean(dim=1)


def mlp(dim: int) -> nn.Sequential:
    """Return the hidden layer of a block, [..., C] -> [..., C]; the checkpoints count a dropout in the third place."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))


def attend(qkv: Tensor, heads: int, *, pool: bool, windowed: bool, kernel: Kernel | None = None) -> Tensor:
    """Compute what lies between the two products of `MaskUnitAttention`.

    Args:
        qkv: [B, windows, tokens, 3 C].
        heads: of the attention.
        pool: reduce the queries to a quarter by max-pooling.
        windowed: attend within windows, rather than over the image.
        kernel: the attention itself; by default torch's choice.

    Returns:
        [B, windows, queries, C].
    """
    q, k, v = sequences(qkv, pool=pool, windowed=windowed)
    return _attend(q, k, v, heads, kernel).reshape(*qkv.shape[:2], -1, q.shape[-1])


def sequences(qkv: Tensor, *, pool: bool, windowed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values that attend to each other, each [N, tokens, C]: of a window, or of an image."""
    batch, windows = qkv.shape[:2]
    q, k, v = qkv.chunk(3, dim=-1)
    if pool:
        q = max_pool(q)
    # torch's fused kernels take four dimensions only: windows are folded into the batch or into the tokens.
    count = batch * windows if windowed else batch
    q, k, v = (t.reshape(count, -1, t.shape[-1]) for t in (q, k, v))
    return q, k, v


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, kernel: Kernel | None = None) -> Tensor:
    """Return the multi-head attention of q [N, queries, C] to k and v [N, keys, C], as [N, queries, C]."""
    q, k, v = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
    return (kernel or F.scaled_dot_product_attention)(q, k, v).transpose(1, 2).flatten(2)


def max_pool(x: Tensor) -> Tensor:
    """Merge tokens 2 by 2, [B, windows, tokens, C] -> [B, windows, tokens / 4, C]."""
    batch, windows, tokens, channels = x.shape
    return x.view(batch, windows, 4, tokens // 4, channels).amax(dim=2)
