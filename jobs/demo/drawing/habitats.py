"""Habitats and lights, as data, and what grows there: plants, and the wood that birds perch on.

Plants are drawn once, into long strips, from which each picture takes a cut-out: quicker than drawing them again, and
never the same twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from jobs.demo.drawing.birds import Part

Colour = tuple[int, int, int]
Duotone = tuple[Colour, Colour]  # what a tone of 0 and a tone of 255 look like
Size = tuple[int, int]  # width and height in pixels

_STRIP = (2560, 160)  # the size in which strips of plants are drawn


@dataclass(frozen=True)
class Plants:
    """A row of plants: `depth` is 0 at the horizon and 1 at the lower edge, `height` a share of the frame's."""

    kind: str
    depth: float
    height: float
    colours: Duotone
    hanging: bool = False


@dataclass(frozen=True)
class Habitat:
    """What stands before a camera: colours as in white light, lengths as shares of the frame.

    Attributes:
        name: what it is.
        horizon: the range of its height in the picture, from above.
        ground: its colours far and near.
        ridges: of hills or treetops, the farthest first: height, how jagged, colour.
        plants: the farthest first.
        perches: where birds sit here.
        trunks: how few and how many trees.
        shore: the depth at which water ends; 0 for none.
    """

    name: str
    horizon: tuple[float, float]
    ground: Duotone
    ridges: tuple[tuple[float, float, Colour], ...]
    plants: tuple[Plants, ...]
    perches: tuple[str, ...]
    trunks: tuple[int, int] = (0, 0)
    shore: float = 0.0


@dataclass(frozen=True)
class Light:
    """How a scene is lit.

    Attributes:
        sky: its colours above and at the horizon.
        haze: what swallows things far away, and how much of the farthest.
        tint: what the colours of near things are multiplied with.
        clouds: how dense.
        grain: standard deviation of the sensor's noise.
        vignette: how dark the corners are.
        sun: the glow about the sun, or the moon.
        infrared: a flash, and no colours.
        lift: what black feathers are raised to: a flash at arm's length finds some grey in everything.
    """

    sky: Duotone
    haze: tuple[Colour, float]
    tint: tuple[float, float, float]
    clouds: float
    grain: float
    vignette: float
    sun: float = 0.0
    infrared: bool = False
    lift: int = 0


HABITATS = (
    Habitat(
        name="heath",
        horizon=(0.40, 0.52),
        ground=((176, 164, 108), (140, 122, 76)),
        ridges=((0.15, 0.0, (104, 118, 122)), (0.09, 0.0, (110, 92, 104)), (0.05, 0.5, (74, 84, 58))),
        plants=(
            Plants("grass", 0.10, 0.05, ((84, 78, 44), (186, 170, 104))),
            Plants("bush", 0.22, 0.09, ((62, 48, 52), (150, 104, 132))),
            Plants("grass", 0.38, 0.08, ((80, 72, 38), (196, 176, 104))),
            Plants("bush", 0.60, 0.13, ((56, 50, 40), (158, 98, 138))),
            Plants("grass", 0.82, 0.13, ((70, 66, 32), (204, 184, 108))),
            Plants("grass", 1.06, 0.22, ((54, 54, 26), (178, 166, 90))),
        ),
        perches=("ground", "post", "air"),
    ),
    Habitat(
        name="marsh",
        horizon=(0.34, 0.44),
        ground=((140, 152, 94), (104, 112, 62)),
        ridges=((0.10, 0.0, (112, 126, 128)), (0.08, 0.6, (76, 92, 70))),
        plants=(
            Plants("reed", 0.05, 0.15, ((82, 84, 44), (186, 172, 104))),
            Plants("grass", 0.80, 0.11, ((52, 62, 26), (150, 160, 78))),
            Plants("grass", 0.96, 0.15, ((46, 56, 22), (142, 156, 72))),
            Plants("reed", 1.12, 0.36, ((48, 54, 26), (160, 150, 84))),
        ),
        perches=("water", "post", "air"),
        shore=0.70,
    ),
    Habitat(
        name="wood",
        horizon=(0.46, 0.56),
        ground=((118, 114, 72), (126, 98, 64)),
        ridges=((0.40, 0.5, (84, 108, 74)), (0.26, 0.7, (58, 82, 50))),
        plants=(
            Plants("fern", 0.10, 0.08, ((40, 62, 28), (116, 150, 66))),
            Plants("fern", 0.34, 0.11, ((36, 56, 24), (112, 148, 60))),
            Plants("grass", 0.62, 0.08, ((48, 56, 26), (128, 140, 70))),
            Plants("fern", 0.86, 0.17, ((30, 48, 20), (108, 148, 58))),
            Plants("fern", 1.10, 0.30, ((22, 38, 16), (84, 122, 46))),
            Plants("leaves", 1.0, 0.24, ((20, 40, 16), (96, 138, 52)), hanging=True),
        ),
        perches=("ground", "branch"),
        trunks=(5, 9),
    ),
)

DAYLIGHTS = (
    Light(((86, 142, 206), (196, 218, 234)), ((190, 208, 222), 0.55), (1.04, 1.02, 0.96), 0.8, 3.0, 0.25),
    Light(((150, 162, 176), (208, 214, 218)), ((198, 206, 212), 0.65), (0.88, 0.92, 0.96), 0.6, 4.0, 0.25),
    Light(((120, 140, 182), (250, 206, 164)), ((238, 196, 168), 0.65), (1.06, 0.93, 0.82), 0.5, 5.0, 0.35, sun=0.55),
    Light(((92, 96, 150), (252, 164, 98)), ((222, 142, 108), 0.60), (1.02, 0.82, 0.68), 0.9, 6.0, 0.40, sun=0.75),
    Light(((176, 188, 194), (216, 221, 220)), ((208, 215, 215), 0.92), (0.92, 0.95, 0.96), 0.2, 4.0, 0.20),
)
INFRARED = Light(
    ((4, 4, 4), (18, 18, 18)), ((6, 6, 6), 0.96), (1.9, 1.9, 1.9), 0.3, 9.0, 0.80, sun=0.25, infrared=True, lift=44
)


@cache
def rows_of(kind: str, size: Size) -> tuple[Image.Image, Image.Image]:
    """Plants of a kind, twice as wide as a picture and as tall as they grow in it: tone and alpha (L)."""
    width, height = size
    length = round(_STRIP[0] * height / _STRIP[1])
    rows = Image.new("L", (2 * width, height)), Image.new("L", (2 * width, height))
    for row, strip in zip(rows, _strip(kind), strict=True):
        for start in range(0, 2 * width, length):
            row.paste(strip.resize((length, height), Image.Resampling.BOX), (start, 0))
    return rows


@cache
def _strip(kind: str) -> tuple[Image.Image, Image.Image]:
    rng = np.random.default_rng(sum(kind.encode()))
    width, height = 2 * _STRIP[0], 2 * _STRIP[1]  # drawn twice as large and reduced: ImageDraw does not antialias
    tone, alpha = Image.new("L", (width, height), 90), Image.new("L", (width, height))
    pens = ImageDraw.Draw(tone), ImageDraw.Draw(alpha)
    for shape, level in _KINDS[kind](rng, width, height):
        for pen, fill in zip(pens, (level, 255), strict=True):
            pen.polygon(shape, fill=fill)
    rooted = Image.linear_gradient("L").resize(alpha.size).point([min(255, 5 * (255 - level)) for level in range(256)])
    return tone.reduce(2), ImageChops.multiply(alpha, rooted).reduce(2)


_Shapes = Iterator[tuple[list[tuple[float, float]], int]]


def _blade(x: float, y: float, tall: float, lean: float, wide: float) -> list[tuple[float, float]]:
    bend, middle = x + lean * 0.35, y - tall * 0.6
    return [
        (x - wide, y),
        (bend - wide * 0.7, middle),
        (x + lean, y - tall),
        (bend + wide * 0.7, middle),
        (x + wide, y),
    ]


def _grass(rng: np.random.Generator, width: int, height: int) -> _Shapes:
    tufts = rng.uniform(0, width, width // 40)
    for x, vigour in zip(tufts, rng.uniform(0.25, 0.7, tufts.size), strict=True):
        for _ in range(9):
            tall = height * vigour * rng.uniform(0.5, 1.3)
            base = x + rng.normal(0, height * 0.08)
            yield _blade(base, height, tall, rng.normal(0, tall * 0.4), height * 0.012), int(rng.integers(10, 255))


def _reed(rng: np.random.Generator, width: int, height: int) -> _Shapes:
    clumps = rng.uniform(0, width, width // 420)
    for x in rng.choice(clumps, width // 24) + rng.normal(0, height * 0.3, width // 24):
        tall, lean = height * rng.uniform(0.35, 0.98), rng.normal(0, height * 0.10)
        yield _blade(x, height, tall, lean, height * 0.010), int(rng.integers(40, 255))
        if rng.random() < 0.16:
            top, left = height - tall, x + lean
            yield [(left - 7, top), (left, top - 12), (left + 7, top), (left + 6, top + 46), (left - 6, top + 46)], 0


def _bush(rng: np.random.Generator, width: int, height: int) -> _Shapes:
    for x in rng.uniform(0, width, width // 170):
        wide, tall = height * rng.uniform(0.35, 0.9), height * rng.uniform(0.35, 0.85)
        for _ in range(120):
            angle, reach = rng.uniform(0, math.pi), rng.uniform(0.1, 1) ** 0.5
            px, py = x + math.cos(angle) * wide * reach, height - math.sin(angle) * tall * reach
            tone = int(np.clip(40 + 190 * math.sin(angle) * reach * rng.uniform(0.4, 1.2), 0, 255))
            yield _blade(px, py + 9, rng.uniform(16, 34), rng.normal(0, 8), rng.uniform(3, 6)), tone


def _fern(rng: np.random.Generator, width: int, height: int) -> _Shapes:
    for x in rng.uniform(0, width, width // 110):
        for _ in range(5):
            tall, lean = height * rng.uniform(0.4, 0.95), rng.normal(0, height * 0.55)
            tone = rng.integers(30, 235)
            for t in np.linspace(0.12, 0.98, 15):
                px, py = x + lean * t**1.6, height - tall * math.sin(t * 1.75)
                for side in (-1, 1):
                    leaf = height * 0.15 * (1.05 - t)
                    tip = px + leaf * side, py - leaf * 0.25 + 4
                    yield [(px, py), tip, (px + leaf * side * 0.3, py + 9)], int(tone + 20 * side)


def _leaves(rng: np.random.Generator, width: int, height: int) -> _Shapes:
    for x in rng.uniform(0, width, width // 130):
        tall, lean = height * rng.uniform(0.3, 0.95), rng.normal(0, height * 0.4)
        for t in rng.uniform(0, 1, 26):
            px, py = x + lean * t + rng.normal(0, 26), height - tall * t
            yield _blade(px, py, rng.uniform(24, 44), rng.normal(0, 26), rng.uniform(6, 11)), int(rng.integers(0, 255))


_KINDS = {"grass": _grass, "reed": _reed, "bush": _bush, "fern": _fern, "leaves": _leaves}


_BARK, _FURROW, _MOSS = "#62503e", "#42342a", "#6c7642"


def _branch(rng: np.random.Generator, left: float, right: float) -> Iterator[Part]:
    """A bough that reaches in from one side and carries the bird at 0, 0; in percent of the frame's height."""
    end, way = (-left, 1) if rng.random() < 0.5 else (right, -1)
    tip, thick, sag = way * rng.uniform(16, 42), rng.uniform(1.8, 3.4), rng.uniform(-5, 12)
    x = np.linspace(tip, end - way * 5, 9)
    y = sag * (x / 140) ** 2 + rng.normal(0, 0.8, 9) * (np.abs(x) > 10)
    half = np.interp(np.abs(x - tip), (0, 180), (thick * 0.2, thick * 1.6))
    for place in rng.integers(0, 8, 5):
        along, up = way * rng.uniform(4, 14), rng.uniform(-16, 20)
        foot = x[place], y[place] + half[place]
        yield Part((foot, (foot[0] + along / 2, foot[1] + up * 0.6), (foot[0] + along, foot[1] + up)), _FURROW, 0.7)
    upper, lower = zip(x, y - half * 0.2, strict=True), zip(x[::-1], (y + half * 1.8)[::-1], strict=True)
    yield Part((*upper, *lower), _BARK)
    for share, colour in ((0.5, _MOSS), (1.1, _FURROW), (1.5, _FURROW)):
        yield Part(tuple(zip(x[1:], (y + half * share)[1:], strict=True)), colour, 0.4)


def _post(rng: np.random.Generator, _left: float, _right: float) -> Iterator[Part]:
    """A weathered fence post with the bird on top at 0, 0; in percent of the frame's height."""
    half = rng.uniform(3.0, 4.5)
    top = ((-half, 1.2), (-half * 0.7, -0.4), (half * 0.8, 0.0), (half, 1.4))
    yield Part((*top, (half * 1.1, 70.0), (-half * 1.1, 70.0)), "#8a7c6a", sharp=True)
    for _ in range(9):
        x, y = rng.uniform(-0.9, 0.9) * half, rng.uniform(1, 30)
        yield Part(((x, y), (x * 1.05, y + rng.uniform(8, 40))), "#5c5246", 0.5)


WOODEN = {"branch": _branch, "post": _post}
