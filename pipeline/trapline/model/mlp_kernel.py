"""The second half of a block as one Triton kernel: norm, both products of the MLP with the GELU between them, residual.

The hidden layer is four times as wide as the tokens. In steps it is written and read again, and so is what the norm
makes: 13 times the size of the tokens passes to or from memory, with the GELU in its product. Here a program holds some
tokens, computes the hidden layer a tile at a time, and adds each tile's share of the output; it reads and writes the
tokens alone.
"""

import triton
import triton.language as tl
from torch import Tensor, empty_like, nn, zeros_like

from trapline.model.row_norm import row_norm

ROWS = 64  # tokens that a program holds


# The compiler resolves annotations in here, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def mlp_kernel(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, offset_ptr, norm_weight, norm_bias, expand_weight, expand_bias, contract_weight, contract_bias,
    rows, eps, width: tl.constexpr, width_padded: tl.constexpr, hidden: tl.constexpr, hidden_held: tl.constexpr,
    rows_held: tl.constexpr, tanh: tl.constexpr,
):  # fmt: skip
    """Compute `rows_held` tokens of `rows`; matrices are those of linear layers, row by row."""
    row = tl.program_id(0) * rows_held + tl.arange(0, rows_held)
    channel = tl.arange(0, width_padded)
    is_channel = channel < width
    is_token = (row < rows)[:, None] & is_channel[None, :]
    place = row[:, None].to(tl.int64) * width + channel[None, :]
    offset = tl.load(offset_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + place, mask=is_token, other=0.0, eviction_policy="evict_last").to(tl.float32)
    x += offset[None, :]
    normed = row_norm(x, channel, norm_weight, norm_bias, eps, width).to(x_ptr.dtype.element_ty)

    total = tl.zeros((rows_held, width_padded), dtype=tl.float32)
    for start in range(0, hidden, hidden_held):
        unit = start + tl.arange(0, hidden_held)
        weight = expand_weight + unit[None, :] * width + channel[:, None]
        held = tl.dot(normed, tl.load(weight, mask=is_channel[:, None], other=0.0), input_precision="ieee")
        held += tl.load(expand_bias + unit).to(tl.float32)[None, :]
        if tanh:  # held * (1 + tanh(y)) / 2 is held * sigmoid(2 y), and here y = sqrt(2 / pi) (held + 0.044715 held^3)
            held = held * tl.sigmoid(1.5957691216057308 * held * (1 + 0.044715 * held * held))
        else:
            held = held * (0.5 + 0.5 * tl.erf(held * 0.7071067811865476))
        back = contract_weight + channel[None, :] * hidden + unit[:, None]
        weight = tl.load(back, mask=is_channel[None, :], other=0.0)
        total += tl.dot(held.to(normed.dtype), weight, input_precision="ieee")

    # The tokens are read a second time, out of the cache: kept, they would take as many registers as the sum. With one
    # policy in both places, the compiler would make one load of the two.
    x = tl.load(x_ptr + place, mask=is_token, other=0.0, eviction_policy="evict_first").to(tl.float32)
    x += offset[None, :]
    total += x + tl.load(contract_bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=is_token)


def add_mlp(
    x: Tensor, offset: Tensor | None, norm: nn.LayerNorm, expand: nn.Linear, contract: nn.Linear, tanh: bool
) -> Tensor:
    """Return x + offset + contract(GELU(expand(norm(x + offset)))).

    Args:
        x: [..., C], contiguous; C is a multiple of 8.
        offset: [C]; None for zeros.
        norm: over C.
        expand: C to 4 C.
        contract: 4 C to C.
        tanh: the GELU's tanh form, rather than the exact one.
    """
    width = x.shape[-1]
    rows, out = x.numel() // width, empty_like(x)
    offset = zeros_like(contract.bias) if offset is None else offset
    mlp_kernel[(triton.cdiv(rows, ROWS),)](
        x, out, offset, norm.weight, norm.bias, expand.weight, expand.bias, contract.weight, contract.bias, rows,
        norm.eps, **constants(width, tanh),
    )  # fmt: skip
    return out


def constants(width: int, tanh: bool) -> dict[str, int]:
    """Return what the kernel is compiled for."""
    padded = max(16, triton.next_power_of_2(width))
    return {
        "width": width, "width_padded": padded, "hidden": 4 * width, "hidden_held": 32, "rows_held": ROWS, "tanh": tanh,
        "num_warps": 4 if padded <= 128 else 8, "num_stages": 2,
    }  # fmt: skip
