"""Hiera's variants as data, under birder's names."""

from dataclasses import dataclass, replace

STAGES = ("stage1", "stage2", "stage3", "stage4")

PATCH = 4  # pixels from one token of the stem to the next
WINDOW = 8  # tokens along the side of a window in the first stage; three poolings leave one
GLOBAL_PATCH = 16  # pixels from one entry of AbsWin's embedding of the whole image to the next


@dataclass(frozen=True)
class Architecture:
    """The choices that define a Hiera, named as in birder's `config`.

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
        """Return the channels of the last stage, which are those of the embedding."""
        return self.embed_dim << len(STAGES) - 1

    def feature_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """Return (channels, height, width) of each stage's feature map, for images of `size` (height, width)."""
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
