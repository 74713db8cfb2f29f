"""Compute how long a pass should take: each kernel as long as its products or its bytes, at measured peaks.

The shapes are those of the reference model, Hiera-Base at 384 pixels; products reach 85 % of the peak, memory 92 %.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

_DEPTHS, _TOKENS, _WIDTH, _HEAD = (2, 3, 16, 3), 9216, 96, 96
_PRODUCTS, _MEMORY = 0.85, 0.92
_PIXELS = 3 * 384 * 384
# Tokens that a query attends to, queries and keys, in the first block of a stage and in the others.
_SEQUENCES = (((64, 64), (64, 64)), ((16, 64), (16, 16)), ((4, 16), (576, 576)), ((144, 576), (144, 144)))
_FLASH_FLOPS = 350e12  # that flash reaches on an H100, on tiles of 128 queries by 64 keys


@dataclass(frozen=True)
class Peaks:
    """What a GPU does at most.

    Attributes:
        flops: multiplications and additions a second, in bf16.
        bytes: read and written a second.
    """

    flops: float
    bytes: float


def microseconds_per_image(peaks: Peaks, *, compiled: bool) -> dict[str, float]:
    """Return the time of each kind of kernel for an image of a large batch, in µs.

    Args:
        peaks: of the GPU.
        compiled: whether pointwise steps are merged, as torch.compile does it; a GELU stays a kernel of its own.
    """
    seconds = Counter[str]()

    def memory(kind: str, size: float) -> None:
        seconds[kind] += size / (_MEMORY * peaks.bytes)  # type: ignore[assignment]

    def product(kind: str, rows: int, inner: int, columns: int, share: float = 1.0) -> None:
        flops, size = 2 * rows * inner * columns, 2 * (rows * inner + rows * columns)
        seconds[kind] += max(flops / (_PRODUCTS * share * peaks.flops), size / (_MEMORY * peaks.bytes))  # type: ignore[assignment]

    tokens_of_stem = _TOKENS * _WIDTH
    memory("stem", _PIXELS * 3 if compiled else _PIXELS * 35)
    product("stem", _TOKENS, 147, _WIDTH, 0.5)
    memory("stem", tokens_of_stem * (6 if compiled else 8))
    for stage, depth in enumerate(_DEPTHS):
        width, tokens = _WIDTH << stage, _TOKENS >> (2 * stage)
        for block in range(depth):
            border = block == 0 and stage > 0
            before, width_before = (4 * tokens, width // 2) if border else (tokens, width)
            queries, keys = _SEQUENCES[stage][block > 0]
            if not compiled:
                memory("normalise, add", 4 * before * width_before)
            if border:
                product("product", before, width_before, width)
                memory("normalise, add", 4 * (before + tokens) * width)
            product("product", before, width_before, 3 * width)
            heads = 1 << stage
            flops = tokens // queries * heads * ceil(queries / 128) * 128 * ceil(keys / 64) * 64 * 4 * _HEAD
            size = tokens // queries * heads * _HEAD * 4 * (queries + keys)
            seconds["attention"] += max(flops / _FLASH_FLOPS, size / (_MEMORY * peaks.bytes))  # type: ignore[assignment]
            product("product", tokens, width, width)
            product("product", tokens, width, 4 * width)
            memory("GELU", 16 * tokens * width)
            product("product", tokens, 4 * width, width)
            memory("normalise, add", 16 * tokens * width)
    return {kind: 1e6 * value for kind, value in seconds.items()}
