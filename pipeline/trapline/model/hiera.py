"""Hiera, the network: images in; logits, embeddings and feature maps out.

Hiera (Ryali et al. 2023, arXiv:2306.00989) is a vision transformer whose stages halve the resolution and double the
width, with nothing added but max-pooling and attention inside windows. AbsWin (Bolya et al. 2023, arXiv:2311.05613)
corrects its position embedding: one that repeats in every window, plus one for the whole image.

Tokens are kept by window from the stem on, as [B, windows, tokens, C]. Inside a window they are in *unrolled* order:
the slowest index says which of the four tokens that a max-pooling merges this is, so that pooling is a view and a
maximum, without rows and columns.

Parameters are named as birder names them, so that its checkpoints load as they are.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trapline.model.architecture import GLOBAL_PATCH, PATCH, STAGES, WINDOW, Architecture
from trapline.model.blocks import AttentionPool, Block, MeanPool


class Output(NamedTuple):
    """The results of one pass; a tuple, so that compiled passes can return it.

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
        architecture: one of `VARIANTS`, or another combination.
        num_classes: 0 for a network without a classifier.
        size: height and width in pixels, multiples of 32.
        input_channels: colour channels of the input.

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
        """Return logits [B, C] of normalised images [B, 3, H, W]."""
        return self.predict(x).logits

    def embedding(self, x: Tensor) -> Tensor:
        """Return embeddings [B, D] of normalised images [B, 3, H, W]."""
        return self.predict(x).embedding

    def detection_features(self, x: Tensor) -> dict[str, Tensor]:
        """Return feature maps [B, C_s, H_s, W_s] of all four stages for normalised images [B, 3, H, W]."""
        return self.predict(x, STAGES).features

    def classify(self, embedding: Tensor) -> Tensor:
        """Return logits [B, C] of embeddings [B, D]; C is 0 without a classifier."""
        logits: Tensor = self.classifier(embedding) if self.num_classes else embedding[:, :0]
        return logits

    def predict(self, x: Tensor, stages: Collection[str] = ()) -> Output:
        """Return logits, embeddings and the feature maps of the named stages, all from one pass.

        Args:
            x: float [B, 3, H, W], normalised by the checkpoint's mean and standard deviation.
            stages: names from `STAGES`.

        Raises:
            ValueError: images of another size than the network's, or no such stage.
        """
        return self.predict_tokens(self.tokens(x), stages)

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens [B, windows, 64, C] of the stem, with their position, for normalised images [B, 3, H, W].

        Raises:
            ValueError: images of another size than the network's.
        """
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(f"images of {tuple(x.shape[2:])} in a network for {self.size}: resize or adjust_size()")
        return _unroll(self.stem(x)) + self._position()

    def predict_tokens(self, tokens: Tensor, stages: Collection[str] = ()) -> Output:
        """Return what `predict` returns, of the tokens that the stem made of the images.

        Raises:
            ValueError: no such stage.
        """
        if not set(stages) <= set(STAGES):
            raise ValueError(f"no such stage in {list(stages)}: choose from {', '.join(STAGES)}")
        # The stem and the head may have a higher precision than the body: convert between them.
        tokens = tokens.to(next(self.body.parameters()).dtype)
        features = {}
        for name, stage in self.body.named_children():
            tokens = stage(tokens)
            if name in stages:
                features[name] = _reroll(tokens, self.size)

        embedding = self.features(tokens.flatten(1, 2).to(next(self.features.parameters()).dtype))
        return Output(self.classify(embedding), embedding, features)

    def adjust_size(self, size: tuple[int, int]) -> None:
        """Adapt the network to images of another size by interpolating its position embedding.

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
        """Return what is added to the tokens of the stem, [1, windows, 64, C]: constant while the weights are.

        It is cached only in eval mode without gradients, and dropped whenever the weights may have changed: by
        gradients, `train()` or `eval()`, `to()`, `load_state_dict()` or `adjust_size()`.
        """
        if self.training or torch.is_grad_enabled():
            self._constant_position = None
            return self._compute_position()
        if self._constant_position is None:
            self._constant_position = self._compute_position()
        return self._constant_position

    def _compute_position(self) -> Tensor:
        dtype = self.get_parameter("stem.proj.weight").dtype
        if self.pos_embed_win is None:
            return _unroll(self._position_table()).to(dtype)
        windows = [side // (PATCH * WINDOW) for side in self.size]
        position = _interpolate(self.pos_embed, self.size, PATCH) + self.pos_embed_win.tile(windows)
        return _unroll(position).to(dtype)

    def _position_table(self) -> Tensor:
        """Return the plain position embedding as a map, [1, C, H / 4, W / 4]."""
        height, width = self.size
        return self.pos_embed.transpose(1, 2).reshape(1, -1, height // PATCH, width // PATCH)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules, and drop the cached position."""
        self._constant_position = None
        return super().train(mode)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> Self:  # which to(), float() and the like call
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


def _body(architecture: Architecture) -> nn.Sequential:
    stages = OrderedDict[str, nn.Module]()
    for stage, (name, depth) in enumerate(zip(STAGES, architecture.depths, strict=True)):
        dim = architecture.embed_dim << stage
        heads = architecture.num_heads << stage
        # The first block attends like those of the stage before, so that attention becomes global only after pooling.
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


def _unroll(x: Tensor) -> Tensor:
    """Reorder rows and columns to windows in unrolled order, [B, C, h, w] -> [B, windows, 64, C]."""
    batch, channels, height, width = x.shape
    # A row or a column inside a window has three bits, the coarsest first. A pooling merges tokens that differ only in
    # the finest bits, so these become the slowest index.
    x = x.view(batch, channels, height // WINDOW, 2, 2, 2, width // WINDOW, 2, 2, 2)
    return x.permute(0, 2, 6, 5, 9, 4, 8, 3, 7, 1).reshape(batch, -1, WINDOW * WINDOW, channels)


def _reroll(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `_unroll` after any stage, [B, windows, tokens, C] -> [B, C, h, w], for images of `size`."""
    batch, _, tokens, channels = x.shape
    bits = (tokens.bit_length() - 1) // 2
    rows, columns = (side // (PATCH * WINDOW) for side in size)
    x = x.view(batch, rows, columns, *[2, 2] * bits, channels)
    row_bits, column_bits = range(1 + 2 * bits, 2, -2), range(2 + 2 * bits, 3, -2)
    x = x.permute(0, -1, 1, *row_bits, 2, *column_bits)
    return x.reshape(batch, channels, rows << bits, columns << bits).contiguous()


def _interpolate(grid: Tensor, size: tuple[int, int], step: int) -> Tensor:
    """Return a position embedding [1, C, h, w] for images of `size`, with an entry every `step` pixels, in float32."""
    height, width = size
    return F.interpolate(grid.float(), (height // step, width // step), mode="bicubic", antialias=True)


def _check_size(size: tuple[int, int]) -> None:
    step = PATCH * WINDOW
    if any(side < step or side % step for side in size):
        raise ValueError(f"Hiera takes images whose sides are multiples of {step}, as its windows are; not {size}")
