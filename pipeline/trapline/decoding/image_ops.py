"""Two kernels for pixels: torchvision's JPEG decoder, and its resizing, without the rest of torchvision.

`import torchvision` takes 1.5 s of CPU, as much as torch itself, because its operators bring `torch._dynamo`; every
worker of a run pays that before its first image.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch.nn.functional import interpolate

_RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode_jpeg(data: bytes) -> torch.Tensor:
    """As `torchvision.io.decode_jpeg`: the same pixels as Pillow's, CMYK included, 1.5 times as fast.

    Args:
        data: the encoded picture.

    Returns:
        `uint8 [3, height, width]`, RGB, in memory pixel by pixel.

    Raises:
        OSError: it is refused, in libjpeg's words.
    """
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        return cast(torch.Tensor, torch.ops.image.decode_jpeg(encoded, _RGB, False))
    except RuntimeError as error:
        raise OSError(str(error).rpartition(", ")[2]) from error  # without the place in torchvision's source


def resize(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """As `torchvision.transforms.v2.functional.resize`, bicubic, with antialiasing, to the byte.

    Args:
        picture: `uint8 [3, height, width]`.
        size: height and width of the result.

    Returns:
        `uint8 [3, *size]`, contiguous.
    """
    if picture.shape[1:] == size:
        return picture.contiguous()
    # With the outer stride that `picture[None]` may lack, torch sees how the picture lies in memory, and keeps to it.
    batch = picture.as_strided((1, *picture.shape), (picture.numel(), *picture.stride()))
    return interpolate(batch, size, mode="bicubic", align_corners=False, antialias=True)[0].contiguous()


def _load_decoder() -> None:
    package = find_spec("torchvision")
    folder = Path(package.origin).parent if package and package.origin else Path()
    library = next(folder.glob("image*.so"), None)
    if library:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    else:  # built in another way: the package knows where it is
        import torchvision.io  # noqa: F401


_load_decoder()
