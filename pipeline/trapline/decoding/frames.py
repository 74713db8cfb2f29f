"""Convert a decoded frame of a clip to the picture that a viewer shows: RGB, and turned by the display matrix."""

from enum import Enum
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from trapline.errors import ImageError

MAX_PIXELS: Final = 2**25
"""8K UHD. A decoder holds up to 17 pictures of 1.5 to 4 bytes a pixel: at the limit some 2 GB."""


def pixels(frame: Any) -> torch.Tensor:
    """Convert a frame to RGB as it is to be shown.

    Args:
        frame: an `av.VideoFrame`.

    Returns:
        `uint8 [3, height, width]`, laid out in memory as a decoded PNG is.

    Raises:
        ImageError: it is too large.
    """
    from av.video.reformatter import Interpolation

    if frame.width * frame.height > MAX_PIXELS:
        raise ImageError("too_large", f"frames of {frame.width} x {frame.height} pixels")
    # The same bytes on every processor; the default rounds as the processor's instructions do.
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    array = frame.to_ndarray(format="rgb24", interpolation=exact, threads=1)
    _know_all_side_data()
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is not None and len(bytes(matrix)) >= 36:
        array = _shown(array, np.frombuffer(bytes(matrix), np.int32, 9).reshape(3, 3))
    return torch.from_numpy(array).permute(2, 0, 1)


@cache
def _know_all_side_data() -> None:
    """Make PyAV list the data beside a frame where some of it is newer than PyAV's names for it.

    It raises ValueError for all of them: of FFmpeg 8 for EXIF, which MJPEG has in each frame, and for the two views of
    phones.
    """
    from av.sidedata.sidedata import Type

    def unnamed(kinds: type[Enum], value: int) -> Enum:
        kind = object.__new__(kinds)
        kind._name_, kind._value_ = f"UNNAMED_{value}", value
        return kind

    Type._missing_ = classmethod(unnamed)  # type: ignore[assignment]


def _shown(array: npt.NDArray[np.uint8], matrix: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Apply a display matrix to an image [height, width, 3]: quarters of a turn and mirroring, to the nearest."""
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):  # the axes change places
        array, across, down = array.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    array = array[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return np.ascontiguousarray(array)
