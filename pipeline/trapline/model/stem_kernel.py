"""The stem as one Triton kernel: pixels as they come, uint8, to tokens in the order of windows.

In steps, 0.4 MB of pixels become floats, are normalised, convolved, brought into windows and added to the position:
7 MB to and from memory for an image of 384 pixels. Here a program reads the pixels of one window and writes its tokens.

Nothing is normalised in the kernel. A convolution of (p / 255 - mean) / std, with zeros around the image, is one of
p - 128 with other weights, plus what it gives for an image of 128s: a constant of each token, as its position and the
bias are. p - 128 is exact in float16, whose weights have 11 bits and not bfloat16's 8; it is as fast.
"""

import copy

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn

from trapline.model.hiera import Hiera

# A row of the 7 x 7 weights has an eighth, 0, in front: so it begins at a pixel whose number is a multiple of four, and
# four are loaded at once. Of 3 x 7 x 8 = 168 weights the products take 64 at a time.
WEIGHTS, TILE = 168, 64


# The compiler resolves annotations in here, and knows none but its own.
@triton.jit  # type: ignore[untyped-decorator]
def stem_kernel(  # type: ignore[no-untyped-def]
    pixels_ptr, out_ptr, weight_ptr, table_ptr, height, width, channels: tl.constexpr, channels_padded: tl.constexpr,
    weights: tl.constexpr, tile: tl.constexpr, tiles: tl.constexpr,
):  # fmt: skip
    """Compute the tokens of one window of one image."""
    columns = width // 32
    windows = columns * (height // 32)
    image, window = tl.program_id(0) // windows, tl.program_id(0) % windows
    token = tl.arange(0, 64)
    channel = tl.arange(0, channels_padded)
    is_channel = (channel < channels)[None, :]
    # A token's number has the bits of its row and its column in turn, the finest first (`hiera._unroll`).
    row = (token >> 5 & 1) + (token >> 3 & 1) * 2 + (token >> 1 & 1) * 4 + window // columns * 8
    column = (token >> 4 & 1) + (token >> 2 & 1) * 2 + (token & 1) * 4 + window % columns * 8
    first = pixels_ptr + image.to(tl.int64) * 3 * height * width

    total = tl.zeros((64, channels_padded), dtype=tl.float32)
    for step in tl.static_range(tiles):
        number = step * tile + tl.arange(0, tile)
        colour, y, x = number // 56, number // 8 % 7, number % 8
        y_at = row[:, None] * 4 - 3 + y[None, :]
        x_at = column[:, None] * 4 - 4 + x[None, :]
        is_pixel = (y_at >= 0) & (y_at < height) & (x_at >= 0) & (x_at < width) & (number < weights)[None, :]
        pixels = tl.load(first + (colour[None, :] * height + y_at) * width + x_at, mask=is_pixel, other=128)
        weight = tl.load(weight_ptr + number[:, None] * channels + channel[None, :], mask=is_channel, other=0.0)
        total += tl.dot(pixels.to(weight.dtype) - 128, weight, input_precision="ieee")

    place = (window * 64 + token)[:, None] * channels + channel[None, :]
    total = total / 128 + tl.load(table_ptr + place, mask=is_channel, other=0.0).to(tl.float32)
    out = out_ptr + image.to(tl.int64) * windows * 64 * channels + place
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=is_channel)


class PixelStem(nn.Module):
    """The tokens of images that are not normalised.

    Args:
        network: in eval mode, whose stem and position are used as they are now; tokens are in the stem's dtype.
        mean: of each colour, of pixels from 0 to 1.
        std: of each colour.
    """

    weight: Tensor
    table: Tensor

    @torch.inference_mode()
    def __init__(self, network: Hiera, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        convolution = network.get_parameter("stem.proj.weight")
        dtype, channels = convolution.dtype, len(convolution)
        mean, std = (each.double().view(1, 3, 1, 1) for each in (mean, std))
        grey = ((128 / 255 - mean) / std).expand(1, 3, *network.size)
        exact = copy.copy(network)
        exact._modules = {"stem": copy.deepcopy(network.stem).double()}
        exact._constant_position = None
        # 128 times too large, since most would be subnormal in float16 as they are.
        folded = F.pad(convolution.double() * (128 / 255 / std), (1, 0)).flatten(1).t()
        padded = F.pad(folded, (0, 0, 0, -WEIGHTS % TILE)).contiguous()
        self.size = network.size
        self.constants = constants(channels)
        self.register_buffer("weight", padded.to(torch.float32 if dtype == torch.float32 else torch.float16))
        self.register_buffer("table", exact.tokens(grey)[0].to(dtype))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, windows, 64, C] of pixels uint8 [B, 3, H, W] of the network's size, contiguous.

        Raises:
            ValueError: images of another size.
        """
        if tuple(pixels.shape[2:]) != self.size:
            raise ValueError(f"images of {tuple(pixels.shape[2:])} in a stem for {self.size}: make one for their size")
        out = torch.empty(len(pixels), *self.table.shape, dtype=self.table.dtype, device=pixels.device)
        grid = (len(pixels) * len(self.table),)
        stem_kernel[grid](pixels, out, self.weight, self.table, *self.size, **self.constants)
        return out


def constants(channels: int) -> dict[str, int]:
    """Return what the kernel is compiled for."""
    padded = max(16, triton.next_power_of_2(channels))
    return {
        "channels": channels, "channels_padded": padded, "weights": WEIGHTS, "tile": TILE,
        "tiles": triton.cdiv(WEIGHTS, TILE), "num_warps": 4 if padded <= 128 else 8,
    }  # fmt: skip
