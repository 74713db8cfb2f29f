"""Boxes of a detector become regions of a picture, which are cut out for the model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Final

import numpy as np
import numpy.typing as npt

# EXIF orientations that MegaDetector and its relatives apply before detection: upside down, and quarter turns.
_UPSIDE_DOWN, _CLOCKWISE, _COUNTERCLOCKWISE = 3, 6, 8

FARTHEST_FRAME: Final = 0.5
"""Seconds that a frame may be away from a frame that the detector processed, to get its boxes.

Detectors process at least one frame per second, so that each moment of a clip is within half a second of one.
"""


@dataclass(frozen=True, slots=True)
class Box:
    """Where a detector found something.

    Attributes:
        category: such as "animal".
        confidence: from 0 to 1.
        bounds: left, top, width, height, as fractions of the picture's sides; within the picture.
        frame: number of the frame in a clip, in the order in which frames are shown, from 0; None in an image.
    """

    category: str
    confidence: float
    bounds: tuple[float, float, float, float]
    frame: int | None = None

    @classmethod
    def clipped(
        cls, category: str, confidence: float, bounds: tuple[float, float, float, float], frame: int | None = None
    ) -> "Box | None":
        """Return the part of a box that lies in the picture; None if there is none, or if a number is not finite."""
        if not all(map(isfinite, (confidence, *bounds))):
            return None
        left, top, width, height = bounds
        spans = [(max(start, 0.0), min(start + length, 1.0)) for start, length in ((left, width), (top, height))]
        (left, right), (top, bottom) = spans
        if right <= left or bottom <= top:
            return None
        if spans == [(left, left + width), (top, top + height)]:  # keep the numbers: a difference would round them
            return cls(category, confidence, bounds, frame)
        return cls(category, confidence, (left, top, right - left, bottom - top), frame)


@dataclass(frozen=True)
class Cropping:
    """How boxes become what the model sees.

    Attributes:
        padding: margin on each side of a box, as a fraction of its longer side; it ends at the edge of the picture.
        square: extend the shorter side to the longer one, evenly to both sides, or moved inwards at the edge of the
            picture; if the picture is too small, to all of it.
        whole: whether an image without boxes is classified whole, or not at all.
    """

    padding: float
    square: bool
    whole: bool

    def region(self, box: Box, width: int, height: int, orientation: int = 1) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the crop, in pixels: at least one pixel, and within the picture.

        Args:
            box: what to cut out.
            width: of the picture as stored, in pixels.
            height: of the picture as stored, in pixels.
            orientation: EXIF's, which the detector applied, but which is not applied to the stored picture.
        """
        left, top, across, down = _as_stored(box.bounds, orientation)
        padding = self.padding * max(across * width, down * height)
        x, columns = _span(left * width - padding, (left + across) * width + padding, width)
        y, rows = _span(top * height - padding, (top + down) * height + padding, height)
        if self.square:
            side = max(columns, rows)
            x, columns = _grown(x, columns, side, width)
            y, rows = _grown(y, rows, side, height)
        return y, x, rows, columns


@dataclass(frozen=True)
class Crops:
    """The boxes of one image or clip, and how to crop them.

    Attributes:
        boxes: in the detector's order.
        cropping: how they become crops.
        processed: numbers of the frames of a clip that the detector processed, if it says so.
    """

    boxes: tuple[Box, ...]
    cropping: Cropping
    processed: tuple[int, ...] = ()

    def regions(self, width: int, height: int, orientation: int) -> Iterator[tuple[int, int, int, int]]:
        """Return the region of each box; see `Cropping.region`."""
        return (self.cropping.region(box, width, height, orientation) for box in self.boxes)

    def of_frame(self, seconds: float, times: npt.NDArray[np.float64]) -> "Crops | None":
        """Return the crops of a frame of a clip: the boxes of the nearest frame that the detector processed.

        Args:
            seconds: when the frame is shown.
            times: when each frame of the clip is shown, float64 [N], in seconds and in order.

        Returns:
            None if that frame has no boxes, or is farther away than `FARTHEST_FRAME`.
        """
        numbers = self._looked_at[: np.searchsorted(self._looked_at, len(times))]
        if not len(numbers):
            return None
        distances = np.abs(times[numbers] - seconds)
        if round(float(distances.min()), 2) > FARTHEST_FRAME:  # containers round to milliseconds
            return None
        number = int(numbers[distances.argmin()])
        boxes = tuple(replace(box, frame=None) for box in self.boxes if box.frame == number)
        return Crops(boxes, self.cropping) if boxes else None

    @cached_property
    def _looked_at(self) -> npt.NDArray[np.int64]:
        """Numbers of the frames with boxes and of those that were processed, in order."""
        return np.unique(
            np.array([*self.processed, *(box.frame for box in self.boxes if box.frame is not None)], np.int64)
        )


def _as_stored(bounds: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """Convert a box from the picture that the detector saw, turned by EXIF, to the picture as stored."""
    left, top, width, height = bounds
    turned = {
        _UPSIDE_DOWN: (1 - left - width, 1 - top - height, width, height),
        _CLOCKWISE: (top, 1 - left - width, height, width),
        _COUNTERCLOCKWISE: (1 - top - height, left, height, width),
    }
    return turned.get(orientation, bounds)


def _span(start: float, end: float, extent: int) -> tuple[int, int]:
    """Return the first pixel and the number of pixels, rounded to the nearest edges between pixels."""
    first = min(max(round(start), 0), extent - 1)
    return first, max(1, min(round(end), extent) - first)


def _grown(first: int, length: int, side: int, extent: int) -> tuple[int, int]:
    side = min(side, extent)
    return min(max(first - (side - length) // 2, 0), extent - side), side
