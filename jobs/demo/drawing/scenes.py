"""Drawn camera-trap photographs: a habitat, a light, a perch, and one of six made-up birds on it.

Everything is placed in shares of the frame, so a scene looks the same at any size. What lies far away is drawn small
and enlarged, which is quick and looks like depth of field. A surface is a grey tone, washed between two colours.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps

from jobs.demo.drawing.birds import Species, Tile, draw_bird, outline, paint
from jobs.demo.drawing.habitats import DAYLIGHTS, HABITATS, INFRARED, Colour, Duotone, Habitat, Light, Plants
from jobs.demo.drawing.plants import WOODEN, rows_of

T = TypeVar("T")
Size = tuple[int, int]  # width and height in pixels

_FAR = (208, 156)  # everything far away is drawn no larger than this
_REFERENCE_WIDTH = 800  # the frame width for which grain is given

# Where a bird is met: its depth, as of plants, and how far above the ground there, as a share of the frame.
_WHERE = {
    "ground": ((0.34, 0.78), (0.0, 0.0)),
    "water": ((0.24, 0.56), (0.0, 0.0)),
    "branch": ((0.70, 0.70), (0.12, 0.34)),
    "post": ((0.85, 0.85), (0.16, 0.34)),
    "air": ((0.78, 0.78), (0.24, 0.48)),
}


def draw_scene(
    rng: np.random.Generator, species: Species, night: bool, size: Size, habitat: Habitat | None = None
) -> Image.Image:
    """Draw one photograph of one bird.

    Args:
        rng: decides everything that is not given.
        species: one of `SPECIES`.
        night: infrared flash and no colours, instead of one of the daylights.
        size: width and height in pixels; scenes are composed for 4 to 3.
        habitat: one of `HABITATS`; None for any that the species frequents.

    Returns:
        An RGB image.
    """
    habitat = habitat or _one_of(rng, [known for known in HABITATS if known.name in species.habitats])
    light = INFRARED if night else _one_of(rng, DAYLIGHTS)
    horizon = rng.uniform(*habitat.horizon)
    far = _far(rng, habitat, light, horizon, min(size, _FAR))
    canvas = far.convert("L" if light.infrared else "RGB").resize(size, Image.Resampling.BICUBIC)

    perch = _one_of(rng, [name for name in species.perches if name in habitat.perches])
    depth, lift = (rng.uniform(*span) for span in _WHERE[perch])
    for plants in habitat.plants:
        if plants.depth <= depth:
            _plant(rng, canvas, plants, light, horizon)
    _place(rng, canvas, species, perch, _row(horizon, depth) - lift, light)
    for plants in habitat.plants:
        if plants.depth > depth:
            _plant(rng, canvas, plants, light, horizon)
    return _exposed(rng, canvas, light)


def _one_of(rng: np.random.Generator, things: Sequence[T]) -> T:
    return things[int(rng.integers(len(things)))]


def _row(horizon: float, depth: float) -> float:
    """Return how far down the picture the ground at a depth is."""
    return horizon + (0.97 - horizon) * depth


@cache
def _curve(at: tuple[float, ...], levels: tuple[float, ...]) -> list[int]:
    """Return a lookup table for `Image.point` that runs through the given levels, straight in between."""
    table: list[int] = np.interp(range(256), at, levels).astype(int).tolist()
    return table


def _gradient(size: Size) -> Image.Image:
    """Return a grey image that rises from 0 in the first row to 255 in the last."""
    return Image.linear_gradient("L").resize(size, Image.Resampling.BILINEAR, (0, 0, 1, 256))


def _steps(levels: npt.NDArray[np.float64]) -> Image.Image:
    """Return an alpha of 0 where `levels` are below 0, and of 255 where they are above 1."""
    return Image.fromarray((levels.clip(0, 1) * 255).astype(np.uint8))


def _seen(colours: Duotone, light: Light, distance: float) -> Duotone:
    """Return colours as they look in a light, through the haze of a distance between 0 and 1."""
    share = light.veil * distance
    seen = np.array(colours) * light.tint * (1 - share) + np.array(light.haze) * share
    dark, bright = seen.clip(0, 255).astype(int).tolist()
    return tuple(dark), tuple(bright)


def _wash(
    canvas: Image.Image, tone: Image.Image, colours: Duotone, alpha: Image.Image | None = None, at: Size = (0, 0)
) -> None:
    """Lay a grey tone over the canvas at a place, in shades between two colours."""
    dark, bright = (colour if canvas.mode == "RGB" else _luma(colour) for colour in colours)
    canvas.paste(dark, (*at, at[0] + tone.width, at[1] + tone.height), alpha)
    canvas.paste(bright, at, ImageChops.multiply(tone, alpha) if alpha else tone)


def _luma(colour: Colour) -> int:
    red, green, blue = colour
    return (299 * red + 587 * green + 114 * blue) // 1000


@cache
def _fractal() -> Image.Image:
    """Return smooth noise of many scales about 128 (L, 1024 by 1024), from which pictures take their textures."""
    rng = np.random.default_rng(0)
    total = np.zeros((1024, 1024), np.float32)
    for cells in (8, 16, 32, 64, 128, 256):
        grid = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize((1024, 1024), Image.Resampling.BICUBIC)) / cells**0.6
    return Image.fromarray((128 + 56 * total / total.std()).clip(0, 255).astype(np.uint8))


def _noise(rng: np.random.Generator, size: Size, wide: int, tall: int) -> Image.Image:
    """Return a cut-out of the noise, `wide` by `tall` of its pixels, brought to a size."""
    x, y = int(rng.integers(1024 - wide)), int(rng.integers(1024 - tall))
    return _fractal().resize(size, Image.Resampling.BILINEAR, (x, y, x + wide, y + tall))


def _floor(rng: np.random.Generator, size: Size, stretch: float) -> Image.Image:
    """Return the noise laid out flat in perspective, from the horizon (first row) to the camera's feet (last)."""
    width, height = size
    falling, wide = 1 / (0.12 * height), 900 / width / stretch
    middle, start = rng.uniform(460, 560), rng.uniform(0, 100)
    # In the noise, x = middle + wide * (x - width / 2) / (1 + falling * y) and y = start + 900 / (1 + falling * y).
    lines = (wide, middle * falling, middle - wide * width / 2, 0.0, start * falling, 900 + start, 0.0, falling)
    return _fractal().transform(size, Image.Transform.PERSPECTIVE, lines, Image.Resampling.BILINEAR)


def _far(rng: np.random.Generator, habitat: Habitat, light: Light, horizon: float, size: Size) -> Image.Image:
    """Return sky, ridges, ground or water, and trunks, in RGB."""
    width, height = size
    line = round(horizon * height)
    scene = _sky(rng, size, light, line)
    mottled = _noise(rng, size, 400, 300)
    for number, ridge in enumerate(habitat.ridges, 1):
        red, green, blue = ridge.colour
        shades = (red * 3 // 4, green * 3 // 4, blue * 3 // 4), (red * 5 // 4, green * 5 // 4, blue * 5 // 4)
        crest = height * (horizon - ridge.rise * _crest(rng, width, ridge.rise, ridge.jagged))
        colours = _seen(shades, light, 1 - 0.75 * number / (len(habitat.ridges) + 1))
        _wash(scene, mottled, colours, _steps(np.arange(height)[:, None] - crest))
    scene.paste(_ground(rng, habitat, light, scene.crop((0, 0, width, line)), height - line), (0, line))

    for nearness in np.sort(rng.uniform(0.0, 0.5, rng.integers(*habitat.trunks, endpoint=True))):
        thick = max(2, round(width * (0.02 + 0.15 * nearness)))
        stem = (thick, round(_row(horizon, nearness) * height))
        bark = _noise(rng, stem, 160, 40).point(_curve((64, 192), (90, 255)))
        shaded = _steps(np.sqrt(1 - np.linspace(-0.97, 0.8, thick)[None] ** 2)).resize(stem)
        colours = _seen(((38, 32, 28), (196, 164, 130)), light, 0.9 - 1.5 * nearness)
        foot = _gradient(stem).point(_curve((235, 255), (255, 0)))
        _wash(scene, ImageChops.multiply(bark, shaded), colours, foot, (int(rng.uniform(-0.05, 1.0) * width), 0))
    return scene


def _sky(rng: np.random.Generator, size: Size, light: Light, line: int) -> Image.Image:
    scene, width = Image.new("RGB", size), size[0]
    _wash(scene, _gradient((width, line)), light.sky)
    if rng.random() < 0.6:
        x, y = rng.uniform(0.1, 0.9) * width, line * (0.3 if light.infrared else 1)
        glow = Image.radial_gradient("L").resize((2 * width, 2 * line)).point(_curve((0, 255), (255 * light.sun, 0)))
        scene.paste((255, 236, 190), (round(x - width), round(y - line)), glow)
    clouds = _noise(rng, (width, line), 260, 520).point(_curve((0, 125, 255), (0, 0, 255 * light.clouds)))
    scene.paste(light.sky[1], (0, 0), clouds)
    return scene


def _crest(rng: np.random.Generator, width: int, rise: float, jagged: float) -> npt.NDArray[np.float64]:
    """Return a line of hills, or of treetops that are the narrower the lower they rise, about 1: float [width]."""
    wave = np.asarray(_noise(rng, (width, 1), 500, 1)).astype(float)[0] / 128 - 1
    teeth = np.abs((np.arange(width) / width * rng.uniform(4, 6) / rise + 2 * wave) % 1 - 0.5)
    crest: npt.NDArray[np.float64] = 0.8 + 0.4 * wave + jagged * (0.3 - 1.2 * teeth)
    return crest


def _ground(rng: np.random.Generator, habitat: Habitat, light: Light, above: Image.Image, height: int) -> Image.Image:
    """Return the ground below the horizon; with a shore, the scene above mirrored in water comes first."""
    size = (above.width, height)
    ground = Image.new("RGB", size)
    _wash(ground, _gradient(size), (_seen(habitat.ground, light, 0.8)[0], _seen(habitat.ground, light, 0.0)[1]))
    rough = _floor(rng, size, 1.0).point(_curve((0, 128, 255), (120, 215, 255)))
    ground = ImageChops.multiply(ground, Image.merge("RGB", [rough] * 3))
    if not habitat.shore:
        return ground
    water = ImageOps.flip(above).resize(size).point(_curve((0, 255), (0, 225)) * 3)
    ripples = _floor(rng, size, 6.0)
    water.paste(light.haze, (0, 0), ripples.point(_curve((100, 200), (0, 130))))
    water.paste((30, 40, 46), (0, 0), ripples.point(_curve((40, 120), (90, 0))))
    bank = habitat.shore + 0.05 * _crest(rng, size[0], 1.0, 0.0)
    water.paste(ground, (0, 0), _steps((np.arange(height)[:, None] / height - bank) * 25))
    return water


def _plant(rng: np.random.Generator, canvas: Image.Image, plants: Plants, light: Light, horizon: float) -> None:
    """Paste a row of plants in the colours of the light."""
    width, height = canvas.size
    size = (width, max(4, round(plants.height * _one_of(rng, (0.8, 0.9, 1.0, 1.1, 1.2)) * height)))
    start = int(rng.integers(width))
    tone, alpha = (row.crop((start, 0, start + width, size[1])) for row in rows_of(plants.kind, size))
    colours = _seen(plants.colours, light, max(0.0, 1 - plants.depth) ** 1.5)
    _wash(canvas, tone, colours, alpha, (0, round(_row(horizon, plants.depth) * height) - size[1]))


def _place(
    rng: np.random.Generator, canvas: Image.Image, species: Species, perch: str, foot: float, light: Light
) -> None:
    """Put a bird, with what it sits on and the shadow or the mirror image it throws, into the picture."""
    width, height = canvas.size
    x, y = rng.uniform(0.2, 0.8) * width, foot * height
    bird = draw_bird(rng, species, height * rng.uniform(*species.height), light.infrared)
    if perch in WOODEN:
        wood = [(part, outline(part)) for part in WOODEN[perch](rng, x / height * 100, (width - x) / height * 100)]
        _paste(canvas, paint(rng, wood, height), x, y, light)
    elif perch == "ground":
        size = (round(bird.image.width * 0.9) + 2, round(bird.image.width * 0.16) + 2)
        shadow = Image.radial_gradient("L").resize(size).point(_curve((0, 180), (150, 0)))
        canvas.paste(Image.new(canvas.mode, size), (round(x - size[0] / 2), round(y - size[1] / 2)), shadow)
    elif perch == "water":
        above = (0, 0, bird.image.width, round(bird.y))
        image, alpha = (ImageOps.flip(layer.crop(above)) for layer in (bird.image, bird.alpha))
        fade = _gradient(alpha.size).point(_curve((0, 255), (120, 0)))
        _paste(canvas, Tile(image, ImageChops.multiply(alpha, fade), bird.x, 0.0), x, y, light)
    _paste(canvas, bird, x, y, light)


def _paste(canvas: Image.Image, tile: Tile, x: float, y: float, light: Light) -> None:
    gains = light.tint[: len(canvas.mode)]
    tables = (_curve((0, 255 / max(gain, 1)), (light.lift, 255 * min(gain, 1))) for gain in gains)
    image = tile.image.convert(canvas.mode).point([*chain.from_iterable(tables)])
    canvas.paste(image, (round(x - tile.x), round(y - tile.y)), tile.alpha)


@cache
def _lens(size: Size, mode: str, vignette: float) -> Image.Image:
    """Return what the lens and the flash let through, to multiply a picture with."""
    width, height = size
    y, x = np.ogrid[0:height, 0:width]
    off_centre = ((x / width - 0.5) / 0.62) ** 2 + ((y / height - 0.60) / 0.66) ** 2
    through = 255 - 255 * vignette * off_centre / (0.35 + 0.65 * off_centre)
    return Image.fromarray(through.clip(0, 255).astype(np.uint8)).convert(mode)


@cache
def _grain(size: Size, mode: str, strength: float) -> Image.Image:
    """Return sensor noise about 128, half again as large as a picture, so that each takes another part of it."""
    width, height = (side * 3 // 2 for side in size)
    noise = np.random.default_rng(0).normal(128, strength * size[0] / _REFERENCE_WIDTH, (height, width))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode)


def _exposed(rng: np.random.Generator, canvas: Image.Image, light: Light) -> Image.Image:
    """Return the picture with vignette and grain, RGB."""
    left, top = (int(rng.integers(side // 2)) for side in canvas.size)
    grain = _grain(canvas.size, canvas.mode, light.grain).crop((left, top, left + canvas.width, top + canvas.height))
    image = ImageChops.multiply(canvas, _lens(canvas.size, canvas.mode, light.vignette))
    return ImageChops.add(image, grain, offset=-128).convert("RGB")
