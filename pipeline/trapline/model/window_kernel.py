"""The first half of a block as one Triton kernel: norm, QKV, attention within windows, projection, residual.

Flash attention works on tiles of 128 queries by 64 keys, sixteen times what windows of 16 tokens need. Here a program
holds several windows at once and masks what lies between them; what it reads and writes is the tokens, once each.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from trapline.model.row_norm import row_norm

ROWS = 64  # tokens that a program holds: one window of the first stage, four of the second
HELD = 32  # channels that a product takes or gives at a time, where all of them would need too many registers


# The compiler resolves annotations in here, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def window_kernel(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, offset_ptr, norm_weight, norm_bias, qkv_weight, qkv_bias, proj_weight, proj_bias, rows, eps,
    heads: tl.constexpr, tokens: tl.constexpr, width: tl.constexpr, head: tl.constexpr, width_padded: tl.constexpr,
    head_padded: tl.constexpr, rows_held: tl.constexpr, width_held: tl.constexpr, head_held: tl.constexpr,
):  # fmt: skip
    """Compute `rows_held` tokens of `rows`; matrices are those of linear layers, row by row."""
    dtype = out_ptr.dtype.element_ty
    first = tl.program_id(0) * rows_held
    row = first + tl.arange(0, rows_held)
    channel = tl.arange(0, width_padded)
    of_head = tl.arange(0, head_padded)
    is_channel = channel < width
    is_of_head = of_head < head
    is_row = (row < rows)[:, None]
    is_token = is_row & is_channel[None, :]
    x_ptr += first.to(tl.int64) * width
    out_ptr += first.to(tl.int64) * width
    place = tl.arange(0, rows_held)[:, None] * width
    x = tl.load(x_ptr + place + channel[None, :], mask=is_token, other=0.0).to(tl.float32)
    x += tl.load(offset_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    normed = row_norm(x, channel, norm_weight, norm_bias, eps, width)
    # The output holds the norm for the time being, which is read from there, out of the cache, some channels at a time:
    # factors of a product come to shared memory through registers, and for all channels at once there are too few.
    tl.store(out_ptr + place + channel[None, :], normed.to(dtype), mask=is_token)
    tl.debug_barrier()

    window = tl.arange(0, rows_held) // tokens
    same_window = window[:, None] == window[None, :]
    total = tl.zeros((rows_held, width_padded), dtype=tl.float32)
    for number in range(heads):
        column = number * head + of_head  # of q; those of k and v lie one and two widths further
        q = tl.zeros((rows_held, head_padded), dtype=tl.float32)
        k = tl.zeros((rows_held, head_padded), dtype=tl.float32)
        for start in range(0, width, width_held):
            part = start + tl.arange(0, width_held)
            some = tl.load(out_ptr + place + part[None, :], mask=is_row & (part < width)[None, :], other=0.0)
            weight = qkv_weight + column[None, :] * width + part[:, None]
            is_weight = (part < width)[:, None] & is_of_head[None, :]
            q = tl.dot(some, tl.load(weight, mask=is_weight, other=0.0), q, input_precision="ieee")
            weight += width * width
            k = tl.dot(some, tl.load(weight, mask=is_weight, other=0.0), k, input_precision="ieee")
        q += tl.load(qkv_bias + column, mask=is_of_head, other=0.0).to(tl.float32)[None, :]
        k += tl.load(qkv_bias + width + column, mask=is_of_head, other=0.0).to(tl.float32)[None, :]
        scores = tl.dot(q.to(dtype), tl.trans(k.to(dtype)), input_precision="ieee")
        scores = tl.where(same_window, scores * (1.4426950408889634 * head**-0.5), float("-inf"))
        likely = tl.exp2(scores - tl.max(scores, 1)[:, None])
        likely = (likely / tl.sum(likely, 1)[:, None]).to(dtype)

        for begin in range(0, head, head_held):
            unit = begin + tl.arange(0, head_held)
            of_v = number * head + unit
            v = tl.zeros((rows_held, head_held), dtype=tl.float32)
            for start in range(0, width, width_held):
                part = start + tl.arange(0, width_held)
                some = tl.load(out_ptr + place + part[None, :], mask=is_row & (part < width)[None, :], other=0.0)
                v_weight = qkv_weight + 2 * width * width + of_v[None, :] * width + part[:, None]
                of_unit = (part < width)[:, None] & (unit < head)[None, :]
                v = tl.dot(some, tl.load(v_weight, mask=of_unit, other=0.0), v, input_precision="ieee")
            v += tl.load(qkv_bias + 2 * width + of_v, mask=unit < head, other=0.0).to(tl.float32)[None, :]
            attended = tl.dot(likely, v.to(dtype), input_precision="ieee").to(dtype)
            back = proj_weight + channel[None, :] * width + of_v[:, None]
            is_back = (unit < head)[:, None] & is_channel[None, :]
            total = tl.dot(attended, tl.load(back, mask=is_back, other=0.0), total, input_precision="ieee")

    place += channel[None, :]
    x = tl.load(x_ptr + place, mask=is_token, other=0.0).to(tl.float32)
    added = tl.load(offset_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)
    added += tl.load(proj_bias + channel, mask=is_channel, other=0.0).to(tl.float32)
    tl.debug_barrier()
    tl.store(out_ptr + place, (total + x + added[None, :]).to(dtype), mask=is_token)


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
        "width_held": HELD, "head_held": HELD, "num_warps": 8, "num_stages": 1,
    }  # fmt: skip
