"""The first half of a block as one Triton kernel: norm, QKV, attention within windows, projection, residual.

Flash attention works on tiles of 128 queries by 64 keys, sixteen times what windows of 16 tokens need. Here a program
holds several windows at once and masks what lies between them; what it reads and writes is the tokens, once each.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

ROWS = 64  # tokens that a program holds: one window of the first stage, four of the second


# The compiler resolves annotations in here, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def window_kernel(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, offset_ptr, norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias, rows, eps,
    heads: tl.constexpr, tokens: tl.constexpr, width: tl.constexpr, head: tl.constexpr, width_padded: tl.constexpr,
    head_padded: tl.constexpr, rows_held: tl.constexpr,
):  # fmt: skip
    """Compute `rows_held` tokens of `rows`; matrices are those of linear layers, row by row."""
    row = tl.program_id(0) * rows_held + tl.arange(0, rows_held)
    channel = tl.arange(0, width_padded)
    of_head = tl.arange(0, head_padded)
    is_channel = channel < width
    is_of_head = of_head < head
    is_token = (row < rows)[:, None] & is_channel[None, :]
    place = row[:, None].to(tl.int64) * width + channel[None, :]

    x = tl.load(x_ptr + place, mask=is_token, other=0.0).to(tl.float32)
    x += tl.load(offset_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    mean = tl.sum(x, 1) / width
    centred = tl.where(is_channel[None, :], x - mean[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 1) / width + eps)
    scale = tl.load(norm_weight + channel, mask=is_channel, other=0.0).to(tl.float32)
    shift = tl.load(norm_bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    normed = (centred / deviation[:, None] * scale[None, :] + shift[None, :]).to(x_ptr.dtype.element_ty)

    window = tl.arange(0, rows_held) // tokens
    same_window = window[:, None] == window[None, :]
    total = tl.zeros((rows_held, width_padded), dtype=tl.float32)
    is_weight = is_channel[:, None] & is_of_head[None, :]
    for number in tl.static_range(heads):
        column = number * head + of_head  # of q; those of k and v lie one and two widths further
        weight = qkv_weight + column[None, :] * width + channel[:, None]
        q = tl.dot(normed, tl.load(weight, mask=is_weight, other=0.0))
        q += tl.load(qkv_bias + column, mask=is_of_head, other=0.0).to(tl.float32)[None, :]
        k = tl.dot(normed, tl.load(weight + width * width, mask=is_weight, other=0.0))
        k += tl.load(qkv_bias + width + column, mask=is_of_head, other=0.0).to(tl.float32)[None, :]
        v = tl.dot(normed, tl.load(weight + 2 * width * width, mask=is_weight, other=0.0))
        v += tl.load(qkv_bias + 2 * width + column, mask=is_of_head, other=0.0).to(tl.float32)[None, :]

        scores = tl.dot(q.to(normed.dtype), tl.trans(k.to(normed.dtype))) * (1.4426950408889634 * head**-0.5)
        scores = tl.where(same_window, scores, float("-inf"))
        likely = tl.exp2(scores - tl.max(scores, 1)[:, None])
        likely = likely / tl.sum(likely, 1)[:, None]
        attended = tl.dot(likely.to(normed.dtype), v.to(normed.dtype)).to(normed.dtype)

        back = proj_weight + channel[None, :] * width + column[:, None]
        total += tl.dot(attended, tl.load(back, mask=is_of_head[:, None] & is_channel[None, :], other=0.0))

    total += x + tl.load(proj_bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_token)


def attend_windows(
    x: Tensor, offset: Tensor | None, norm: nn.LayerNorm, qkv: nn.Linear, proj: nn.Linear, heads: int
) -> Tensor:
    """Return x + offset + proj(attention(qkv(norm(x + offset)))), all within windows.

    Args:
        x: [B, windows, tokens, C], contiguous; tokens is a divisor of `ROWS`.
        offset: [C]; None for zeros.
        norm: over C.
        qkv: C to 3 C.
        proj: C to C.
        heads: of the attention.
    """
    width, tokens = x.shape[-1], x.shape[2]
    rows, out = x.numel() // width, torch.empty_like(x)
    offset = torch.zeros_like(proj.bias) if offset is None else offset
    window_kernel[(triton.cdiv(rows, ROWS),)](
        x, out, offset, norm.weight, norm.bias, qkv.weight, qkv.bias, proj.weight, proj.bias, rows, norm.eps,
        **constants(width, tokens, heads),
    )  # fmt: skip
    return out


def constants(width: int, tokens: int, heads: int) -> dict[str, int]:
    """Return what the kernel is compiled for."""
    head = width // heads
    return {
        "heads": heads, "tokens": tokens, "width": width, "head": head, "rows_held": ROWS,
        "width_padded": max(16, triton.next_power_of_2(width)), "head_padded": max(16, triton.next_power_of_2(head)),
        "num_warps": 4 if width <= 128 else 8,
    }  # fmt: skip
