"""Hiera, the network: images in; logits, embeddings and feature maps out.

Hiera (Ryali et al. 2023, arXiv:2306.00989) is a vision transformer whose stages halve the resolution and double the
width, with nothing added but max-pooling and attention inside windows. AbsWin (Bolya et al. 2023, arXiv:2311.05613)
mends its position embedding: one that repeats in every window, plus one for the whole image.

Tokens are kept by window from the stem on, as [B, windows, tokens, C]. Inside a window they stand in *unrolled* order:
which of the four tokens that a max-pooling merges is the slowest index, so that pooling is a view and a maximum, and
knows nothing of rows and columns.

Parameters are named as birder names them, so that its checkpoints load as they are.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ("stage1", "stage2", "stage3", "stage4")

PATCH = 4  # pixels from one token of the stem to the next
WINDOW = 8  # tokens along the side of a window in the first stage; three poolings leave one
GLOBAL_PATCH = 16  # pixels from one entry of AbsWin's embedding of the whole image to the next


@dataclass(frozen=True)
class Architecture:
    """What sets one Hiera apart from another, by the names that birder's `config` gives it.

    Attributes:
        depths: blocks in each of the four stages.
        embed_dim: channels of the first stage, doubled in each further one.
        num_heads: attention heads of the first stage, doubled in each further one.
        abs_win_pos_embed: AbsWin's position embedding rather than a plain table of all tokens.
        attn_pool_head: attention pools the last stage rather than the mean.
        attn_pool_num_heads: heads of that attention; None for as many as the last stage has.
        q_pool: how many of the three stage borders halve the resolution.
        mlp_head: a classifier with a hidden layer.
        head_bias: a bias in the last layer of the classifier.
    """

    depths: tuple[int, int, int, int]
    embed_dim: int
    num_heads: int
    abs_win_pos_embed: bool = False
    attn_pool_head: bool = False
    attn_pool_num_heads: int | None = None
    q_pool: int = 3
    mlp_head: bool = False
    head_bias: bool = True

    @property
    def embedding_size(self) -> int:
        """Channels of the last stage, and so of the embedding."""
        return self.embed_dim << len(STAGES) - 1

    def feature_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """Channels, height and width of each stage's feature map, for images of `size` in pixels."""
        height, width = size
        halvings = [min(stage, self.q_pool) for stage in range(len(STAGES))]
        return {
            name: (self.embed_dim << stage, height // PATCH >> halved, width // PATCH >> halved)
            for stage, (name, halved) in enumerate(zip(STAGES, halvings, strict=True))
        }


_SIZES = {
    "tiny": Architecture(depths=(1, 2, 7, 2), embed_dim=96, num_heads=1),
    "small": Architecture(depths=(1, 2, 11, 2), embed_dim=96, num_heads=1),
    "base": Architecture(depths=(2, 3, 16, 3), embed_dim=96, num_heads=1),
    "base_plus": Architecture(depths=(2, 3, 16, 3), embed_dim=112, num_heads=2),
    "large": Architecture(depths=(2, 6, 36, 4), embed_dim=144, num_heads=2),
    "huge": Architecture(depths=(2, 6, 36, 4), embed_dim=256, num_heads=4),
}

VARIANTS: dict[str, Architecture] = {
    **{f"hiera_{name}": size for name, size in _SIZES.items()},
    **{f"hiera_abswin_{name}": replace(size, abs_win_pos_embed=True) for name, size in _SIZES.items()},
    "hiera_abswin_base_plus_ap": replace(_SIZES["base_plus"], abs_win_pos_embed=True, attn_pool_head=True),
}


class Output(NamedTuple):
    """What one pass gives. A tuple, so that compiled passes can return it.

    Attributes:
        logits: float [B, C]; C is 0 without a classifier.
        embedding: float [B, D].
        features: stage name -> float [B, C_s, H_s, W_s], for the stages that were asked for.
    """

    logits: Tensor
    embedding: Tensor
    features: dict[str, Tensor]


class Hiera(nn.Module):
    """The network, for images of one size.

    Args:
        architecture: one of `VARIANTS`, or an own one.
        num_classes: 0 for a network without a classifier.
        size: height and width in pixels, multiples of 32.
        input_channels: colours of the input.

    Raises:
        ValueError: the size is no multiple of 32.
    """

    def __init__(
        self, architecture: Architecture, num_classes: int, size: tuple[int, int], input_channels: int = 3
    ) -> None:
        super().__init__()
        _check_size(size)
        self.num_classes = num_classes
        self.size = size

        dim = architecture.embed_dim
        height, width = size
        self.pos_embed_win: nn.Parameter | None = None
        if architecture.abs_win_pos_embed:
            self.pos_embed = nn.Parameter(torch.empty(1, dim, height // GLOBAL_PATCH, width // GLOBAL_PATCH))
            self.pos_embed_win = nn.Parameter(torch.empty(1, dim, WINDOW, WINDOW))
        else:
            self.pos_embed = nn.Parameter(torch.empty(1, (height // PATCH) * (width // PATCH), dim))
        self._constant_position: Tensor | None = None

        patches = nn.Conv2d(input_channels, dim, kernel_size=7, stride=PATCH, padding=3)
        self.stem = nn.Sequential(OrderedDict(proj=patches))
        self.body = _body(architecture)
        self.features = _pool_and_norm(architecture)
        self.classifier = _classifier(architecture, num_classes)
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of normalised images [B, 3, H, W]."""
        return self.predict(x).logits

    def embedding(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] of normalised images [B, 3, H, W]."""
        return self.predict(x).embedding

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps [B, C_s, H_s, W_s] of all four stages for normalised images [B, 3, H, W]."""
        return self.predict(x, STAGES).features

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits [B, C] of embeddings [B, D]; C is 0 without a classifier."""
        logits: Tensor = self.classifier(embedding) if self.num_classes else embedding[:, :0]
        return logits

    def predict(self, x: Tensor, stages: Collection[str] = ()) -> Output:
        """Logits, embeddings and the feature maps of the named stages, all from one pass.

        Args:
            x: float [B, 3, H, W], normalised by the checkpoint's mean and standard deviation.
            stages: names out of `STAGES`.

        Raises:
            ValueError: images of another size than the network's, or no such stage.
        """
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(f"images of {tuple(x.shape[2:])} in a network for {self.size}: resize or adjust_size()")
        if not set(stages) <= set(STAGES):
            raise ValueError(f"no such stage in {list(stages)}: choose from {', '.join(STAGES)}")

        tokens = _unroll(self.stem(x)) + self._position()
        features = {}
        for name, stage in self.body.named_children():
            tokens = stage(tokens)
            if name in stages:
                features[name] = _reroll(tokens, self.size)

        # A head that is kept in a finer precision than the body takes the tokens in its own.
        embedding = self.features(tokens.flatten(1, 2).to(next(self.features.parameters()).dtype))
        return Output(self.classify(embedding), embedding, features)

    def adjust_size(self, size: tuple[int, int]) -> None:
        """Makes the network take images of another size, by interpolating its position embedding.

        Args:
            size: height and width in pixels, multiples of 32.

        Raises:
            ValueError: the size is no multiple of 32.
        """
        _check_size(size)
        if size == self.size:
            return

        with torch.no_grad():
            if self.pos_embed_win is not None:
                resized = _interpolate(self.pos_embed, size, GLOBAL_PATCH)
            else:
                resized = _interpolate(self._position_table(), size, PATCH).flatten(2).transpose(1, 2).contiguous()
        self.pos_embed = nn.Parameter(resized.to(self.pos_embed.dtype), self.pos_embed.requires_grad)
        self.size = size
        self._constant_position = None

    def _position(self) -> Tensor:
        """What is added to the tokens of the stem, [1, windows, 64, C]: a constant as long as the weights stand still.

        It is kept in eval mode without gradients only, and forgotten whenever the weights may have changed: by
        gradients, `train()` or `eval()`, `to()`, `load_state_dict()` or `adjust_size()`.
        """
        if self.training or torch.is_grad_enabled():
            self._constant_position = None
            return self._compute_position()
        if self._constant_position is None:
            self._constant_position = self._compute_position()
        return self._constant_position

    def _compute_position(self) -> Tensor:
        if self.pos_embed_win is None:
            return _unroll(self._position_table())
        windows = [side // (PATCH * WINDOW) for side in self.size]
        position = _interpolate(self.pos_embed, self.size, PATCH) + self.pos_embed_win.tile(windows)
        return _unroll(position).to(self.pos_embed.dtype)

    def _position_table(self) -> Tensor:
        """The plain position embedding as a map, [1, C, H / 4, W / 4]."""
        height, width = self.size
        return self.pos_embed.transpose(1, 2).reshape(1, -1, height // PATCH, width // PATCH)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all modules."""
        self._constant_position = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # where to() and its kin end
        self._constant_position = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def _load_from_state_dict(self, *args: object) -> None:
        self._constant_position = None
        super()._load_from_state_dict(*args)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
                nn.init.constant_(module.bias, 0.02)

        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.pos_embed_win is not None:
            nn.init.trunc_normal_(self.pos_embed_win, std=0.02)
        if isinstance(self.classifier, nn.Linear):
            with torch.no_grad():
                for parameter in self.classifier.parameters():
                    parameter.mul_(0.001)


class Block(nn.Module):
    """A transformer block, [B, windows, tokens, C] -> [B, windows, tokens, C_out]; `pool` leaves a quarter of them."""

    def __init__(self, dim: int, dim_out: int, heads: int, *, pool: bool, windowed: bool) -> None:
        super().__init__()
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None
        self.attn = MaskUnitAttention(dim, dim_out, heads, pool=pool, windowed=windowed)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = _mlp(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then an MLP, each added to what came in."""
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
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, windows, tokens, C] -> [B, windows, queries, C_out]."""
        out: Tensor = self.proj(attend(self.qkv(x), self.heads, pool=self.pool, windowed=self.windowed))
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
        self.mlp = _mlp(dim)
        nn.init.trunc_normal_(self.latent, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then an MLP, added to it."""
        q = self.q(self.latent).expand(len(x), -1, -1)
        k, v = self.kv(x).chunk(2, dim=-1)
        x = self.proj(_attend(q, k, v, self.heads)).squeeze(1)
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class MeanPool(nn.Module):
    """The mean token, [B, tokens, D] -> [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(dim=1)


def _body(architecture: Architecture) -> nn.Sequential:
    stages = OrderedDict[str, nn.Module]()
    for stage, (name, depth) in enumerate(zip(STAGES, architecture.depths, strict=True)):
        dim = architecture.embed_dim << stage
        heads = architecture.num_heads << stage
        # The first block still attends as the stage before did, so that attention becomes global only after pooling.
        border = stage > 0
        first = Block(
            dim // 2 if border else dim, dim, heads, pool=border and stage <= architecture.q_pool, windowed=stage <= 2
        )
        others = [Block(dim, dim, heads, pool=False, windowed=stage < 2) for _ in range(depth - 1)]
        stages[name] = nn.Sequential(first, *others)
    return nn.Sequential(stages)


def _pool_and_norm(architecture: Architecture) -> nn.Sequential:
    dim = architecture.embedding_size
    heads = architecture.attn_pool_num_heads or architecture.num_heads << 3
    pool = AttentionPool(dim, heads) if architecture.attn_pool_head else MeanPool()
    return nn.Sequential(pool, nn.LayerNorm(dim, eps=1e-6))


def _classifier(architecture: Architecture, num_classes: int) -> nn.Module:
    dim = architecture.embedding_size
    if num_classes == 0:
        return nn.Identity()
    if not architecture.mlp_head:
        return nn.Linear(dim, num_classes, bias=architecture.head_bias)
    last = nn.Linear(3 * dim, num_classes, bias=architecture.head_bias)
    return nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.LayerNorm(3 * dim, eps=1e-6), last)


def _mlp(dim: int) -> nn.Sequential:
    # The checkpoints count a dropout in the third place.
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))


def attend(qkv: Tensor, heads: int, *, pool: bool, windowed: bool) -> Tensor:
    """What `MaskUnitAttention` does between its two products, [B, windows, tokens, 3 C] -> [B, windows, queries, C]."""
    q, k, v = sequences(qkv, pool=pool, windowed=windowed)
    return _attend(q, k, v, heads).reshape(*qkv.shape[:2], -1, q.shape[-1])


def sequences(qkv: Tensor, *, pool: bool, windowed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values that attend to each other, each [N, tokens, C]: of a window, or of an image."""
    batch, windows = qkv.shape[:2]
    q, k, v = qkv.chunk(3, dim=-1)
    if pool:
        q = max_pool(q)
    # torch's fused kernels take four dimensions only: windows are folded into the batch, or else into the tokens.
    count = batch * windows if windowed else batch
    q, k, v = (t.reshape(count, -1, t.shape[-1]) for t in (q, k, v))
    return q, k, v


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention of q [N, queries, C] to k and v [N, keys, C], as [N, queries, C]."""
    q, k, v = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def max_pool(x: Tensor) -> Tensor:
    """Merges tokens 2 by 2, [B, windows, tokens, C] -> [B, windows, tokens / 4, C]."""
    batch, windows, tokens, channels = x.shape
    return x.view(batch, windows, 4, tokens // 4, channels).amax(dim=2)


def _unroll(x: Tensor) -> Tensor:
    """Rows and columns to windows in unrolled order, [B, C, h, w] -> [B, windows, 64, C]."""
    batch, channels, height, width = x.shape
    # A row or a column inside a window is three bits, the coarsest first. A pooling merges what differs in the finest
    # bits only, so those become the slowest index.
    x = x.view(batch, channels, height // WINDOW, 2, 2, 2, width // WINDOW, 2, 2, 2)
    return x.permute(0, 2, 6, 5, 9, 4, 8, 3, 7, 1).reshape(batch, -1, WINDOW * WINDOW, channels)


def _reroll(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Undoes `_unroll` after any stage, [B, windows, tokens, C] -> [B, C, h, w], for images of `size`."""
    batch, _, tokens, channels = x.shape
    bits = (tokens.bit_length() - 1) // 2
    rows, columns = (side // (PATCH * WINDOW) for side in size)
    x = x.view(batch, rows, columns, *[2, 2] * bits, channels)
    row_bits, column_bits = range(1 + 2 * bits, 2, -2), range(2 + 2 * bits, 3, -2)
    x = x.permute(0, -1, 1, *row_bits, 2, *column_bits)
    return x.reshape(batch, channels, rows << bits, columns << bits).contiguous()


def _interpolate(grid: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """A position embedding [1, C, h, w] for images of `size`, with an entry every `step` pixels, in float32."""
    height, width = size
    return F.interpolate(grid.float(), (height // step, width // step), mode="bicubic", antialias=True)


def _check_size(size: tuple[int, int]) -> None:
    step = PATCH * WINDOW
    if any(side < step or side % step for side in size):
        raise ValueError(f"Hiera takes images whose sides are multiples of {step}, as its windows are; not {size}")
