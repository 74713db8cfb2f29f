"""Layer norm of the rows that a Triton kernel holds."""

import triton
import triton.language as tl


# The compiler resolves annotations in here, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def row_norm(x, channel, weight_ptr, bias_ptr, eps, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the norm of x [rows, channels] in float32; channels from `width` on are 0, and stay it."""
    is_channel = channel < width
    mean = tl.sum(x, 1) / width
    centred = tl.where(is_channel[None, :], x - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 1) / width + eps)
    weight = tl.load(weight_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=is_channel, other=0.0).to(tl.float32)
    return centred * scale[:, None] * weight[None, :] + bias[None, :]
