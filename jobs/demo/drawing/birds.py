"""Six made-up birds, and how a drawing of flat shapes is painted.

A bird of `birds.yaml` looks to the right. Its parts are painted in order, each through points as in SVG's `points`: x
towards where it looks and y downwards, in percent of its height, from where it touches what it sits on (in flight:
from its middle). Joints turn some of the parts, which makes poses.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageChops, ImageDraw
from pydantic import BaseModel, BeforeValidator, TypeAdapter

Outline = npt.NDArray[np.float64]  # points, [N, 2]
Point = tuple[float, float]

_SUPERSAMPLING = 2  # tiles are painted this much larger and reduced: ImageDraw itself does not antialias
_EYESHINE = "#ffffff"  # how an eye reflects an infrared flash


def _points(text: object) -> object:
    return [pair.split(",") for pair in text.split()] if isinstance(text, str) else text


class Part(BaseModel, frozen=True):
    """One painted piece: a closed outline, with a `width` a stroke through its points, or a disc about its only point.

    Points and width are in percent of the unit that `paint` is given. Lines are splines unless `sharp`.
    """

    points: Annotated[tuple[Point, ...], BeforeValidator(_points)]
    colour: str
    width: float = 0.0
    sharp: bool = False
    joint: str = ""


class Joint(BaseModel, frozen=True):
    """What turns parts about a pivot, by one angle per bird (degrees, clockwise) between two limits."""

    pivot: Point
    low: float
    high: float


class Species(BaseModel, frozen=True):
    """A made-up bird.

    Attributes:
        name: what the model calls it.
        perches: where it sits, names from `scenes`.
        habitats: names of the habitats that it frequents.
        height: the range of its height, as a share of the frame's.
        night_share: how many of its photographs are taken at night.
        joints: by the names that parts use.
        parts: painted in order.
        eyes: painted last; at night they shine.
    """

    name: str
    perches: tuple[str, ...]
    habitats: tuple[str, ...]
    height: tuple[float, float]
    night_share: float
    joints: dict[str, Joint]
    parts: tuple[Part, ...]
    eyes: tuple[Part, ...]


SPECIES = TypeAdapter(tuple[Species, ...]).validate_python(
    yaml.safe_load(Path(__file__).with_name("birds.yaml").read_bytes())
)


class Tile(NamedTuple):
    """A drawing on nothing: RGB, its alpha (L), and where its origin lies in it, in pixels."""

    image: Image.Image
    alpha: Image.Image
    x: float
    y: float


def draw_bird(rng: np.random.Generator, species: Species, height: float, night: bool) -> Tile:
    """Draw one individual in a pose of its own, looking left or right, `height` pixels tall."""
    angles = {name: rng.uniform(joint.low, joint.high) for name, joint in species.joints.items()}
    tilt = rng.uniform(-5, 5)
    build = np.array([rng.choice((-1, 1)) * rng.uniform(0.86, 1.04), 1.0])
    eyes = [eye.model_copy(update={"colour": _EYESHINE}) if night else eye for eye in species.eyes]
    shapes = []
    for part in (*species.parts, *eyes):
        points = outline(part)
        if part.joint:
            points = _turned(points, species.joints[part.joint].pivot, angles[part.joint])
        shapes.append((part, _turned(points, (0.0, 0.0), tilt) * build))
    return paint(rng, shapes, height)


def paint(rng: np.random.Generator, shapes: list[tuple[Part, Outline]], unit: float) -> Tile:
    """Paint parts through their (turned) outlines, lit from above; `unit` is what 100 percent are in pixels."""
    everything = np.concatenate([points for _, points in shapes])
    low, high = everything.min(axis=0) - 6, everything.max(axis=0) + 6
    columns, rows = (math.ceil(side * unit / 100) for side in high - low)
    large = (columns * _SUPERSAMPLING, rows * _SUPERSAMPLING)
    image, alpha = Image.new("RGB", large, shapes[0][0].colour), Image.new("L", large)
    pixels = unit / 100 * _SUPERSAMPLING
    pens = ImageDraw.Draw(image), ImageDraw.Draw(alpha)
    for part, points in shapes:
        for pen, fill in zip(pens, (part.colour, "white"), strict=True):
            _stroke(pen, ((points - low) * pixels).ravel().tolist(), part.width * pixels, fill)
    # Mottled as feathers and bark are, by a generator of its own: how much is drawn from it depends on the size.
    shade = np.linspace(255, 160, rows // 3 + 1)[:, None] * rng.uniform(0.8, 1.0)
    mottled = rng.spawn(1)[0].uniform(0.85, 1, (rows // 3 + 1, columns // 3 + 1)) * shade
    light = Image.fromarray(mottled.astype(np.uint8)).resize((columns, rows), Image.Resampling.BILINEAR)
    lit = ImageChops.multiply(image.reduce(_SUPERSAMPLING), Image.merge("RGB", [light] * 3))
    x, y = -low * unit / 100
    return Tile(lit, alpha.reduce(_SUPERSAMPLING), x, y)


@lru_cache(maxsize=256)  # the birds' parts; wood differs from picture to picture
def outline(part: Part) -> Outline:
    """Return the points that a part is painted through: its own, or a Catmull-Rom spline through them."""
    p = np.asarray(part.points)
    if part.sharp or len(p) < 3:
        return p
    ring = np.vstack([p[:1], p, p[-1:]]) if part.width else np.vstack([p[-1:], p, p[:2]])
    a, b, c, d = (ring[k : len(ring) - 3 + k, None] for k in range(4))
    t = np.linspace(0, 1, 6, endpoint=False)[:, None]
    spline = b + (c - a) * t / 2 + (a - 2.5 * b + 2 * c - d / 2) * t**2 + (1.5 * (b - c) + (d - a) / 2) * t**3
    return np.vstack([spline.reshape(-1, 2), p[-1:] if part.width else p[:1]])


def _turned(points: Outline, pivot: Point, degrees: float) -> Outline:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: Outline = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return turned


def _stroke(pen: ImageDraw.ImageDraw, points: list[float], width: float, fill: str) -> None:
    if len(points) == 2:
        pen.circle(points, width / 2, fill=fill)
    elif width:
        pen.line(points, fill=fill, width=max(1, round(width)), joint="curve")
    else:
        pen.polygon(points, fill=fill)
