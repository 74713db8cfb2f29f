"""What grows in a habitat, and the wood that birds perch on.

Plants are drawn once, into long strips, from which each picture takes a cut-out: quicker than drawing them again, and
never the same twice.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from jobs.demo.drawing.birds import Part, Point

_LENGTH, _HEIGHT = 5120, 320  # of a strip; drawn at twice the size that is used: ImageDraw does not antialias
_Shapes = Iterator[tuple[list[Point], float]]  # polygons, and their tone from 0 to 255
_BARK, _FURROW, _MOSS = "#62503e", "#42342a", "#6c7642"


@cache
def rows_of(kind: str, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return plants of a kind, twice as wide as a picture and as tall as they grow in it: tone and alpha (L)."""
    width, height = size
    length = _LENGTH * height // _HEIGHT
    rows = Image.new("L", (2 * width, height)), Image.new("L", (2 * width, height))
    for row, strip in zip(rows, _strip(kind), strict=True):
        for start in range(0, 2 * width, length):
            row.paste(strip.resize((length, height), Image.Resampling.BOX), (start, 0))
    return rows


@cache
def _strip(kind: str) -> tuple[Image.Image, Image.Image]:
    rng = np.random.default_rng(sum(kind.encode()))
    tone, alpha = Image.new("L", (_LENGTH, _HEIGHT), 90), Image.new("L", (_LENGTH, _HEIGHT))
    shade, cover = ImageDraw.Draw(tone), ImageDraw.Draw(alpha)
    for shape, level in _KINDS[kind](rng):
        shade.polygon(shape, fill=int(np.clip(level, 0, 255)))
        cover.polygon(shape, fill=255)
    rooted = Image.linear_gradient("L").resize(alpha.size).point([min(255, 5 * (255 - level)) for level in range(256)])
    return tone.reduce(2), ImageChops.multiply(alpha, rooted).reduce(2)


def _blade(x: float, y: float, tall: float, lean: float, wide: float) -> list[Point]:
    bend, middle = x + lean * 0.35, y - tall * 0.6
    edge = [(x - wide, y), (bend - wide * 0.7, middle), (x + lean, y - tall)]
    return [*edge, (bend + wide * 0.7, middle), (x + wide, y)]


def _grass(rng: np.random.Generator) -> _Shapes:
    for x in rng.uniform(0, _LENGTH, 128):
        vigour = rng.uniform(80, 224)
        for _ in range(9):
            tall = vigour * rng.uniform(0.5, 1.3)
            yield _blade(x + rng.normal(0, 26), _HEIGHT, tall, rng.normal(0, tall * 0.4), 4), rng.uniform(10, 255)


def _reed(rng: np.random.Generator) -> _Shapes:
    for clump in rng.choice(rng.uniform(0, _LENGTH, 12), 213):
        x, tall, lean = clump + rng.normal(0, 96), rng.uniform(110, 314), rng.normal(0, 32)
        yield _blade(x, _HEIGHT, tall, lean, 3), rng.uniform(40, 255)
        if rng.random() < 0.16:
            top, left = _HEIGHT - tall, x + lean
            yield [(left - 7, top), (left, top - 12), (left + 7, top), (left + 6, top + 46), (left - 6, top + 46)], 0


def _bush(rng: np.random.Generator) -> _Shapes:
    for x in rng.uniform(0, _LENGTH, 30):
        wide, tall = rng.uniform(110, 290), rng.uniform(110, 270)
        for angle, reach in zip(rng.uniform(0, math.pi, 120), rng.uniform(0.1, 1, 120) ** 0.5, strict=True):
            foot = x + math.cos(angle) * wide * reach, _HEIGHT + 9 - math.sin(angle) * tall * reach
            tone = 40 + 190 * math.sin(angle) * reach * rng.uniform(0.4, 1.2)
            yield _blade(*foot, rng.uniform(16, 34), rng.normal(0, 8), rng.uniform(3, 6)), tone


def _fern(rng: np.random.Generator) -> _Shapes:
    for x in np.repeat(rng.uniform(0, _LENGTH, 46), 5):
        tall, lean, tone = rng.uniform(128, 304), rng.normal(0, 176), rng.uniform(30, 235)
        for t in np.linspace(0.12, 0.98, 15):
            px, py = x + lean * t**1.6, _HEIGHT - tall * math.sin(t * 1.75)
            for leaf in (48 * (1.05 - t), -48 * (1.05 - t)):
                tip = px + leaf, py - abs(leaf) * 0.25 + 4
                yield [(px, py), tip, (px + leaf * 0.3, py + 9)], tone + math.copysign(20, leaf)


_KINDS = {"grass": _grass, "reed": _reed, "bush": _bush, "fern": _fern}


def _branch(rng: np.random.Generator, left: float, right: float) -> Iterator[Part]:
    """Draw a bough that reaches in from one side and carries the bird at 0, 0; in percent of the frame's height."""
    end, way = (-left, 1) if rng.random() < 0.5 else (right, -1)
    x = np.linspace(way * rng.uniform(16, 42), end - way * 5, 9)
    y = rng.uniform(-5, 12) * (x / 140) ** 2 + rng.normal(0, 0.8, 9) * (np.abs(x) > 10)
    half = np.interp(np.abs(x - x[0]), (0, 180), (0.5, rng.uniform(3, 5)))
    for at in rng.integers(0, 8, 5):
        along, up = way * rng.uniform(4, 14), rng.uniform(-16, 20)
        bend, tip = (x[at] + along / 2, y[at] + up * 0.6), (x[at] + along, y[at] + up)
        yield Part(points=((x[at], y[at] + half[at]), bend, tip), colour=_FURROW, width=0.7)
    upper, lower = zip(x, y - half * 0.2, strict=True), zip(x[::-1], (y + half * 1.8)[::-1], strict=True)
    yield Part(points=(*upper, *lower), colour=_BARK)
    for share, colour in ((0.5, _MOSS), (1.1, _FURROW), (1.5, _FURROW)):
        yield Part(points=tuple(zip(x[1:], (y + half * share)[1:], strict=True)), colour=colour, width=0.4)


def _post(rng: np.random.Generator, _left: float, _right: float) -> Iterator[Part]:
    """Draw a weathered fence post with the bird on top at 0, 0; in percent of the frame's height."""
    half = rng.uniform(3.0, 4.5)
    top = ((-half, 1.2), (-half * 0.7, -0.4), (half * 0.8, 0.0), (half, 1.4))
    yield Part(points=(*top, (half * 1.1, 70.0), (-half * 1.1, 70.0)), colour="#8a7c6a", sharp=True)
    for x, y in zip(rng.uniform(-0.9, 0.9, 9) * half, rng.uniform(1, 30, 9), strict=True):
        yield Part(points=((x, y), (x * 1.05, y + rng.uniform(8, 40))), colour="#5c5246", width=0.5)


WOODEN = {"branch": _branch, "post": _post}
