"""Boxes become regions of a picture: what a detector found, and what is cut out around it for the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

# EXIF orientations that detectors of the MegaDetector family apply before they look: upside down, and the two sides.
_UPSIDE_DOWN, _CLOCKWISE, _COUNTERCLOCKWISE = 3, 6, 8


@dataclass(frozen=True, slots=True)
class Box:
    """Where a detector found something.

    Attributes:
        category: such as "animal".
        confidence: from 0 to 1.
        bounds: left, top, width, height, as fractions of the picture's sides; all of it lies in the picture.
    """

    category: str
    confidence: float
    bounds: tuple[float, float, float, float]

    @classmethod
    def clipped(cls, category: str, confidence: float, bounds: tuple[float, float, float, float]) -> "Box | None":
        """Return the part of a box that lies in the picture; None where nothing does, or where a number is NaN."""
        if not all(map(isfinite, (confidence, *bounds))):
            return None
        left, top, width, height = bounds
        spans = [(max(start, 0.0), min(start + length, 1.0)) for start, length in ((left, width), (top, height))]
        (left, right), (top, bottom) = spans
        if right <= left or bottom <= top:
            return None
        if spans == [(left, left + width), (top, top + height)]:  # or a difference would round what was given
            return cls(category, confidence, bounds)
        return cls(category, confidence, (left, top, right - left, bottom - top))


@dataclass(frozen=True)
class Cropping:
    """How boxes become what the model sees.

    Attributes:
        padding: added on each side of a box, as a fraction of its longer side; nothing is added beyond the picture.
        square: grow the shorter side to the longer about the middle, moved as far as the picture's edge asks; where
            the picture is too small for it, to all of the picture.
        whole: whether an image without boxes is classified whole, or not at all.
    """

    padding: float
    square: bool
    whole: bool

    def region(self, box: Box, width: int, height: int, orientation: int = 1) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the crop, in pixels: at least one pixel, and all of it in the picture.

        Args:
            box: what to cut out.
            width: of the picture as stored, in pixels.
            height: of the picture as stored, in pixels.
            orientation: EXIF's, which the detector applied before it looked, and which the stored picture is without.
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
    """The boxes of one image, and how to crop them."""

    boxes: tuple[Box, ...]
    cropping: Cropping

    def regions(self, width: int, height: int, orientation: int) -> Iterator[tuple[int, int, int, int]]:
        """Return the region of each box; see `Cropping.region`."""
        return (self.cropping.region(box, width, height, orientation) for box in self.boxes)


def _as_stored(bounds: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """Convert a box from the picture as the detector turned it to the picture as it is stored."""
    left, top, width, height = bounds
    turned = {
        _UPSIDE_DOWN: (1 - left - width, 1 - top - height, width, height),
        _CLOCKWISE: (top, 1 - left - width, height, width),
        _COUNTERCLOCKWISE: (1 - top - height, left, height, width),
    }
    return turned.get(orientation, bounds)


def _span(start: float, end: float, extent: int) -> tuple[int, int]:
    """Return the first pixel and the number of pixels, to the nearest edges between pixels."""
    first = min(max(round(start), 0), extent - 1)
    return first, max(1, min(round(end), extent) - first)


def _grown(first: int, length: int, side: int, extent: int) -> tuple[int, int]:
    side = min(side, extent)
    return min(max(first - (side - length) // 2, 0), extent - side), side
