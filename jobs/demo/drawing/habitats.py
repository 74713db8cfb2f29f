"""Habitats and lights, as `habitats.yaml` describes them: colours as in white light, lengths as shares of the frame."""

from pathlib import Path

import yaml
from pydantic import BaseModel

Colour = tuple[int, int, int]
Duotone = tuple[Colour, Colour]  # what a tone of 0 and a tone of 255 look like


class Plants(BaseModel, frozen=True):
    """A row of plants: `depth` is 0 at the horizon and 1 at the lower edge."""

    kind: str
    depth: float
    height: float
    colours: Duotone


class Ridge(BaseModel, frozen=True):
    """A line of hills or, the more `jagged`, of treetops."""

    rise: float
    jagged: float
    colour: Colour


class Habitat(BaseModel, frozen=True):
    """What stands before a camera; ridges and plants from the farthest to the nearest.

    Attributes:
        name: what it is.
        horizon: the range of its height in the picture, from above.
        ground: its colours far and near.
        ridges: at the horizon.
        plants: on the ground.
        perches: where birds sit here.
        trunks: how few and how many trees.
        shore: the depth at which water ends; 0 for none.
    """

    name: str
    horizon: tuple[float, float]
    ground: Duotone
    ridges: tuple[Ridge, ...]
    plants: tuple[Plants, ...]
    perches: tuple[str, ...]
    trunks: tuple[int, int] = (0, 0)
    shore: float = 0.0


class Light(BaseModel, frozen=True):
    """How a scene is lit.

    Attributes:
        sky: its colours above and at the horizon.
        haze: the colour that far things fade to.
        veil: how much of it the farthest has.
        tint: what the colours of near things are multiplied by.
        clouds: how dense.
        grain: standard deviation of the sensor's noise.
        vignette: how dark the corners are.
        sun: the glow about the sun.
        infrared: a flash, and no colours.
        lift: what black feathers are raised to: a flash at arm's length finds some grey in everything.
    """

    sky: Duotone
    haze: Colour
    veil: float
    tint: tuple[float, float, float]
    clouds: float
    grain: float
    vignette: float
    sun: float = 0.0
    infrared: bool = False
    lift: int = 0


class _Catalogue(BaseModel):
    habitats: tuple[Habitat, ...]
    daylights: tuple[Light, ...]
    infrared: Light


_CATALOGUE = _Catalogue(**yaml.safe_load(Path(__file__).with_name("habitats.yaml").read_bytes()))
HABITATS, DAYLIGHTS, INFRARED = _CATALOGUE.habitats, _CATALOGUE.daylights, _CATALOGUE.infrared
