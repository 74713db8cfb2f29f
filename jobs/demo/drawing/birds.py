"""Six made-up birds, as data, and how such a drawing is painted.

A bird looks to the right. Its parts are painted in order, each through points as in SVG's `points`: x to where
it looks and y downwards, in percent of its height, from where it touches what it sits on (in flight: from its middle).
Joints turn some of the parts, which makes poses.
"""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

Outline = npt.NDArray[np.float64]  # points, [N, 2]

_SUPERSAMPLING = 2  # tiles are painted this much larger and reduced: ImageDraw itself does not antialias
_STEPS = np.linspace(0, 1, 6, endpoint=False)[:, None]  # samples between two points of a spline
_EYESHINE = "#ffffff"  # what an eye sends back to an infrared flash


@dataclass(frozen=True)
class Part:
    """One painted piece: a closed outline, with a `width` a stroke through its points, or a disc about its only point.

    Points and width are in percent of the unit that `paint` is given. Lines are splines unless `sharp`. A bird's part
    may turn with a `joint`.
    """

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 0.0
    sharp: bool = False
    joint: str = ""


@dataclass(frozen=True)
class Joint:
    """What turns parts about a pivot, by an angle (degrees, clockwise) between two limits; one angle per bird."""

    pivot: tuple[float, float]
    low: float
    high: float


@dataclass(frozen=True)
class Species:
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


@dataclass(frozen=True)
class Tile:
    """A drawing on nothing: RGB, its alpha (L), and where its origin lies in it, in pixels."""

    image: Image.Image
    alpha: Image.Image
    x: float
    y: float


def draw_bird(rng: np.random.Generator, species: Species, height: float, night: bool) -> Tile:
    """One individual in a pose of its own, looking left or right, `height` pixels tall."""
    angles = {name: math.radians(rng.uniform(joint.low, joint.high)) for name, joint in species.joints.items()}
    tilt = math.radians(rng.uniform(-5, 5))
    build = np.array([rng.choice((-1, 1)) * rng.uniform(0.86, 1.04), 1.0])
    eyes = [replace(eye, colour=_EYESHINE) for eye in species.eyes] if night else species.eyes
    shapes = []
    for part in (*species.parts, *eyes):
        points = outline(part)
        if part.joint:
            points = _turned(points, species.joints[part.joint].pivot, angles[part.joint])
        shapes.append((part, _turned(points, (0.0, 0.0), tilt) * build))
    return paint(rng, shapes, height)


def paint(rng: np.random.Generator, shapes: list[tuple[Part, Outline]], unit: float) -> Tile:
    """Paints parts through their (turned) outlines, in a light from above; `unit` is what 100 percent are in pixels."""
    everything = np.concatenate([points for _, points in shapes])
    low, high = everything.min(axis=0) - 6, everything.max(axis=0) + 6
    columns, rows = (math.ceil(side * unit / 100) for side in high - low)
    large = (columns * _SUPERSAMPLING, rows * _SUPERSAMPLING)
    image, alpha = Image.new("RGB", large, shapes[0][0].colour), Image.new("L", large)
    pens = ImageDraw.Draw(image), ImageDraw.Draw(alpha)
    pixels = unit / 100 * _SUPERSAMPLING
    for part, points in shapes:
        for pen, fill in zip(pens, (part.colour, "white"), strict=True):
            _stroke(pen, ((points - low) * pixels).ravel().tolist(), part.width * pixels, fill)
    light = _light(rng, (columns, rows))
    lit = ImageChops.multiply(image.reduce(_SUPERSAMPLING), Image.merge("RGB", [light] * 3))
    x, y = -low * unit / 100
    return Tile(lit, alpha.reduce(_SUPERSAMPLING), x, y)


@cache
def outline(part: Part) -> Outline:
    """The points that a part is painted through: its own, or a Catmull-Rom spline through them."""
    p = np.asarray(part.points)
    if part.sharp or len(p) < 3:
        return p
    closed = part.width == 0
    ring = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    a, b, c, d = (ring[k : len(ring) - 3 + k, None] for k in range(4))
    t = _STEPS
    spline = b + (c - a) * t / 2 + (a - 2.5 * b + 2 * c - d / 2) * t**2 + (1.5 * (b - c) + (d - a) / 2) * t**3
    return np.vstack([spline.reshape(-1, 2), p[:1] if closed else p[-1:]])


def _turned(points: Outline, pivot: tuple[float, float], angle: float) -> Outline:
    cos, sin = math.cos(angle), math.sin(angle)
    turned: Outline = (points - pivot) @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return turned


def _stroke(pen: ImageDraw.ImageDraw, points: list[float], width: float, fill: str) -> None:
    if len(points) == 2:
        pen.circle(points, width / 2, fill=fill)
    elif width:
        pen.line(points, fill=fill, width=max(1, round(width)), joint="curve")
    else:
        pen.polygon(points, fill=fill)


def _light(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """How much light falls where, as a grey image: most from above, mottled as feathers and bark are."""
    shade = rng.uniform(0.8, 1.0)
    columns, rows = (side // 3 + 1 for side in size)
    # A generator of its own: how much is drawn from it depends on the size, and a scene must not.
    mottled = rng.spawn(1)[0].integers(216, 256, (rows, columns)) * np.linspace(shade, 0.64 * shade, rows)[:, None]
    return Image.fromarray(mottled.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _part(points: str, colour: str, width: float = 0.0, *, sharp: bool = False, joint: str = "") -> Part:
    pairs = (pair.split(",") for pair in points.split())
    return Part(tuple((float(x), float(y)) for x, y in pairs), colour, width, sharp, joint)


SPECIES = (
    Species(
        name="reed strider",
        perches=("water",),
        habitats=("marsh",),
        height=(0.40, 0.62),
        night_share=0.45,
        joints={"neck": Joint((14, -54), -8, 62)},
        parts=(
            _part("2,-42 9,-23 6,0 13,0", "#966c42", 1.8, sharp=True),
            _part("-4,-42 -1,-22 -6,0 2,0", "#ac804a", 2, sharp=True),
            _part("-44,-40 -28,-53 -5,-61 13,-59 20,-50 12,-41 -10,-37 -28,-38", "#929caa"),
            _part("10,-50 25,-60 26,-70 18,-80 19,-90 25,-93", "#babec4", 6.2, joint="neck"),
            _part("13,-46 27,-60 28.5,-70 21.5,-80", "#e2e2de", 2.2, joint="neck"),
            _part("-46,-37 -30,-50 -6,-57 8,-53 3,-45 -16,-41 -32,-38", "#626e80"),
            _part("-40,-39.5 -22,-47 -2,-51", "#7c889a", 1.2),
            _part("-36,-38.5 -20,-43 -2,-47", "#485262", 1),
            _part("17,-93 21,-98.5 29,-98.5 34,-94.5 29,-90.5 21,-90", "#e4e4e0", joint="neck"),
            _part("32,-96.5 62,-91.5 32,-92.5", "#e2a03a", sharp=True, joint="neck"),
            _part("30,-97 22,-98.5 11,-95.5 2,-90", "#1e2028", 2.4, joint="neck"),
        ),
        eyes=(_part("28.5,-95.5", "#282214", 2.2, joint="neck"),),
    ),
    Species(
        name="button finch",
        perches=("ground", "branch", "post"),
        habitats=("heath", "wood"),
        height=(0.24, 0.40),
        night_share=0.2,
        joints={"head": Joint((5, -62), -14, 16), "tail": Joint((-36, -50), -14, 22)},
        parts=(
            _part("-30,-56 -62,-88 -74,-86 -66,-74 -32,-40", "#5c422c", sharp=True, joint="tail"),
            _part("-2,-14 0,0 12,0", "#46362c", 3, sharp=True),
            _part("10,-14 13,0 25,0", "#46362c", 3, sharp=True),
            _part("-46,-46 -30,-66 0,-76 30,-66 42,-40 28,-15 0,-9 -30,-20", "#8a6846"),
            _part("16,-66 36,-58 43,-38 28,-14 2,-9 -6,-22 8,-42", "#de6c36"),
            _part("-16,-16 4,-9 22,-12 12,-22 -4,-22", "#e8d8be"),
            _part("-58,-36 -40,-52 -12,-60 6,-50 4,-34 -18,-26 -40,-30", "#604630"),
            _part("-44,-44 -22,-51 0,-49", "#ecdab4", 3),
            _part("-46,-36 -24,-41 0,-41", "#3c2c20", 2.2),
            _part("-6,-78 4,-94 20,-100 38,-94 45,-78 36,-62 14,-56 0,-62", "#8e6a46", joint="head"),
            _part("22,-86 38,-88 45,-76 36,-60 20,-64", "#e27038", joint="head"),
            _part("43,-84 60,-76.5 43,-71", "#3a3432", sharp=True, joint="head"),
        ),
        eyes=(_part("30,-82", "#14100e", 7, joint="head"),),
    ),
    Species(
        name="lantern owl",
        perches=("branch", "post"),
        habitats=("wood", "heath"),
        height=(0.30, 0.48),
        night_share=0.8,
        joints={"head": Joint((0, -68), -13, 13)},
        parts=(
            _part("-20,-22 -17,16 2,18 6,-10", "#705a42"),
            _part("-9,-5 -10,1", "#ccb88c", 6.5),
            _part("8,-5 9,1", "#ccb88c", 6.5),
            _part("-27,-62 -31,-36 -22,-8 0,-1 20,-8 29,-36 25,-62 0,-70", "#b09670"),
            *(_part(f"{x},{y} {x + 1},{y + 5}", "#685036", 2.6) for y in range(-56, -12, 9) for x in range(-14, 15, 9)),
            _part("-24,-64 -33,-42 -31,-16 -22,-2 -18,-26 -17,-50", "#765c40"),
            _part("22,-64 32,-42 30,-16 22,-2 18,-26 16,-50", "#7e6244"),
            _part("-30,-80 -26,-62 0,-54 26,-62 30,-80 20,-92 0,-95 -20,-92", "#826648", joint="head"),
            _part("-27,-82 -25,-102 -11,-92", "#6c5238", sharp=True, joint="head"),
            _part("27,-82 25,-102 11,-92", "#6c5238", sharp=True, joint="head"),
            _part("-11.5,-76.5", "#dcccaa", 23.5, joint="head"),
            _part("11.5,-76.5", "#dcccaa", 23.5, joint="head"),
            _part("-3,-92 0,-80 3,-92", "#deceae", sharp=True, joint="head"),
            _part("-3.5,-74 3.5,-74 0,-63", "#3e342c", sharp=True, joint="head"),
            _part("-11,-77", "#f0a826", 12.5, joint="head"),
            _part("11,-77", "#f0a826", 12.5, joint="head"),
        ),
        eyes=tuple(_part(f"{x},-77", "#120e0c", 7, joint="head") for x in (-10.5, 11.5)),
    ),
    Species(
        name="soot crow",
        perches=("ground", "post", "branch"),
        habitats=("heath", "wood", "marsh"),
        height=(0.26, 0.44),
        night_share=0.25,
        joints={"head": Joint((26, -70), -14, 40), "tail": Joint((-40, -44), -8, 8)},
        parts=(
            _part("-36,-54 -98,-30 -102,-20 -84,-17 -34,-36", "#141419", sharp=True, joint="tail"),
            _part("0,-26 -3,-12 2,0 16,0", "#1e1c1e", 4, sharp=True),
            _part("12,-26 13,-12 20,0 34,0", "#222022", 4, sharp=True),
            _part("-54,-40 -30,-60 4,-76 30,-76 42,-58 30,-34 6,-22 -26,-28", "#1e1e24"),
            _part("16,-76 24,-92 40,-100 56,-95 62,-83 54,-71 40,-60 22,-60", "#222229", joint="head"),
            _part("57,-93 74,-89 88,-79 72,-79 58,-76", "#2e2d30", sharp=True, joint="head"),
            _part("57,-83 80,-81", "#101012", 1.4, joint="head"),
            _part("-86,-27 -50,-48 -16,-62 12,-58 10,-42 -16,-34 -50,-30", "#16161c"),
            _part("-66,-33 -30,-47 4,-53", "#3a3e50", 2.4),
            _part("-60,-30 -28,-39 4,-44", "#303242", 1.8),
            _part("-34,-59 0,-71 20,-73", "#3c3e4e", 2.2),
        ),
        eyes=(_part("47,-87", "#787064", 4, joint="head"),),
    ),
    Species(
        name="mirror duck",
        perches=("water",),
        habitats=("marsh",),
        height=(0.22, 0.36),
        night_share=0.35,
        joints={"head": Joint((44, -46), -12, 22)},
        parts=(
            _part("-70,-38 -104,-54 -92,-20 -66,-4", "#34302e", sharp=True),
            _part("-90,-30 -60,-46 -10,-50 36,-46 62,-26 58,-4 30,3 -40,3 -78,-6", "#beb6a8"),
            _part("20,-40 48,-44 66,-24 58,-2 30,3 22,-14", "#864c2e"),
            _part("26,-40 34,-62 34,-80 46,-95 64,-98 78,-88 78,-74 64,-62 58,-48 56,-34", "#1c5c46", joint="head"),
            _part("29,-42 42,-37 57,-40", "#f0eee6", 6, joint="head"),
            _part("74,-84 90,-79 110,-76 112,-70 92,-68 76,-70", "#deb23c", joint="head"),
            _part("-86,-32 -56,-46 -6,-46 16,-32 -2,-18 -46,-14 -76,-20", "#7c7268"),
            _part("-40,-24 -8,-26 -6,-17 -36,-15", "#3e5cbe", sharp=True),
            _part("-42,-27 -6,-29", "#f0eee8", 3),
            _part("-70,-32 -34,-39 4,-36", "#9c9286", 2.4),
        ),
        eyes=(_part("66,-84", "#0e0e0e", 5.8, joint="head"),),
    ),
    Species(
        name="vane kite",
        perches=("air",),
        habitats=("heath", "marsh"),
        height=(0.26, 0.44),
        night_share=0.15,
        joints={
            "far wing": Joint((5, -4), -24, 22),
            "near wing": Joint((-5, -2), -22, 26),
            "tail": Joint((-40, 2), -10, 14),
        },
        parts=(
            _part("20,-6 34,-40 62,-74 90,-98 80,-74 66,-56 48,-36 9,-4", "#76442a", sharp=True, joint="far wing"),
            _part("62,-74 90,-98 86,-86 80,-80 80,-70 70,-64 66,-56", "#282222", sharp=True, joint="far wing"),
            _part("-34,-3 -86,-16 -72,1 -88,16 -34,7", "#ba6636", sharp=True, joint="tail"),
            _part("-44,1 -20,-11 14,-13 40,-8 46,0 36,8 6,12 -24,9", "#965432"),
            _part("28,-10 40,-13 50,-8 51,1 42,6 29,5", "#dad2c4"),
            _part("49,-6 60,-1 57,6 48,2", "#e2b03a", sharp=True),
            _part("16,0 2,-34 -22,-62 -52,-86 -50,-64 -42,-40 -34,-16 -24,4", "#824a2c", sharp=True, joint="near wing"),
            _part("-22,-62 -54,-88 -56,-74 -60,-66 -52,-60 -54,-50 -44,-48", "#241f20", sharp=True, joint="near wing"),
            _part("-12,-36 -30,-54 -42,-48 -36,-34 -24,-26", "#ded4c6", joint="near wing"),
            _part("8,-6 -6,-32 -20,-48", "#b06a3e", 3.5, joint="near wing"),
        ),
        eyes=(_part("44,-5", "#18140e", 3.5),),
    ),
)
