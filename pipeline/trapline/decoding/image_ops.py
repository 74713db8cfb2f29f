"""Resize pictures and crops as torchvision does, without importing torchvision.

`import torchvision` takes 1.5 s of CPU, as much as torch itself, because its operators import `torch._dynamo`; every
worker of a run would spend that before its first image.
"""

import torch
from torch.nn.functional import interpolate

from trapline.decoding.crops import Crops


def resize(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the picture as `torchvision.transforms.v2.functional.resize` does, bicubic, antialiased, to the byte.

    Args:
        picture: `uint8 [3, height, width]`.
        size: height and width of the result.

    Returns:
        `uint8 [3, *size]`, contiguous.
    """
    if picture.shape[1:] == size:
        return picture.contiguous()
    # `picture[None]` may have another outer stride, by which torch would not recognise the memory layout, and keep it.
    batch = picture.as_strided((1, *picture.shape), (picture.numel(), *picture.stride()))
    return interpolate(batch, size, mode="bicubic", align_corners=False, antialias=True)[0].contiguous()


def cut(picture: torch.Tensor, size: tuple[int, int], crops: Crops, orientation: int = 1) -> list[torch.Tensor]:
    """Return each crop of a picture, resized as `resize` does.

    Args:
        picture: `uint8 [3, height, width]`, as stored.
        size: height and width of the results.
        crops: what to cut out.
        orientation: EXIF's, which is not applied to `picture`.

    Returns:
        For each box `uint8 [3, *size]`.
    """
    height, width = picture.shape[1:]
    regions = crops.regions(width, height, orientation)
    return [resize(picture[:, top : top + rows, left : left + columns], size) for top, left, rows, columns in regions]
