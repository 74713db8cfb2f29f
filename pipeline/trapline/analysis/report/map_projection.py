"""Compute a map's projection, grid of degrees and scale bar, so that a page needs no tiles from a server.

The projection is equirectangular: kilometres east and north of a point in the middle, true along its parallel and along
all meridians. For a survey area of some hundred kilometres the difference cannot be measured on a screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of a degree of latitude (WGS 84, mean).
_KM_PER_DEGREE = 111.195
# An area is drawn at least so wide: cameras a few metres apart are one place on a map.
_LEAST_KM = 0.2
_MARGIN = 0.12
# Lines of a grid, and lengths of a bar: of these numbers and their powers of ten, or of what halves a degree.
_STEPS_DEGREES = (30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_LINES = 3


@dataclass(frozen=True)
class Line:
    """A line of equal longitude or latitude, in kilometres.

    Attributes:
        at: east of the middle (a meridian), or north of it (a parallel).
        label: its degrees.
    """

    at: float
    label: str


@dataclass(frozen=True)
class Map:
    """Points on a plane.

    Attributes:
        points: kilometres east and north of the middle, in the order that they were given in.
        east, north: the first and the last kilometre of the map.
        meridians, parallels: lines of the grid.
        bar: length of a scale bar, kilometres.
    """

    points: tuple[tuple[float, float], ...]
    east: tuple[float, float]
    north: tuple[float, float]
    meridians: tuple[Line, ...]
    parallels: tuple[Line, ...]
    bar: float


def project(places: Sequence[tuple[float, float]], ratio: float) -> Map:
    """Return a map of these places.

    Args:
        places: latitude and longitude in degrees; at least one.
        ratio: of the map's width to its height, at least; an area that is wide is drawn wide and low.
    """
    latitudes = [latitude for latitude, _ in places]
    longitudes = _unwrapped([longitude for _, longitude in places])
    middle = (min(latitudes) + max(latitudes)) / 2, (min(longitudes) + max(longitudes)) / 2
    km_east = _KM_PER_DEGREE * max(0.01, math.cos(math.radians(middle[0])))
    points = tuple(
        ((longitude - middle[1]) * km_east, (latitude - middle[0]) * _KM_PER_DEGREE)
        for latitude, longitude in zip(latitudes, longitudes, strict=True)
    )
    width = max(_LEAST_KM, 2 * max(abs(east) for east, _ in points)) * (1 + 2 * _MARGIN)
    height = max(_LEAST_KM, 2 * max(abs(north) for _, north in points)) * (1 + 2 * _MARGIN)
    width, height = max(width, height * ratio), max(height, width / ratio)
    return Map(
        points,
        (-width / 2, width / 2),
        (-height / 2, height / 2),
        _lines(middle[1], width / km_east, km_east, "EW"),
        _lines(middle[0], height / _KM_PER_DEGREE, _KM_PER_DEGREE, "NS"),
        _bar(width),
    )


def _unwrapped(longitudes: list[float]) -> list[float]:
    """Return longitudes without the jump at 180°, where the places lie on both sides of it."""
    if max(longitudes) - min(longitudes) <= 180:
        return longitudes
    return [longitude % 360 for longitude in longitudes]


def _lines(middle: float, span: float, km: float, letters: str) -> tuple[Line, ...]:
    """Return the lines at round degrees within a span around the middle."""
    step = next((step for step in _STEPS_DEGREES if span / step >= _LINES), _STEPS_DEGREES[-1])
    first, last = math.ceil((middle - span / 2) / step), math.floor((middle + span / 2) / step)
    degrees = [number * step for number in range(first, last + 1)]
    return tuple(Line((degree - middle) * km, _label(degree, step, letters)) for degree in degrees)


def _label(degree: float, step: float, letters: str) -> str:
    turned = (degree + 180) % 360 - 180 if letters == "EW" else degree
    decimals = max(0, math.ceil(-math.log10(step)))
    letter = letters[turned < 0] if round(turned, decimals) else ""
    return f"{abs(turned):.{decimals}f}°{f' {letter}' if letter else ''}"


def _bar(width: float) -> float:
    """Return a round length of at most a quarter of the width."""
    power = 10.0 ** math.floor(math.log10(width / 4))
    return next(step * power for step in (5, 2, 1) if step * power <= width / 4)
