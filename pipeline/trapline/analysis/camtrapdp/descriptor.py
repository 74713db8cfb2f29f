"""The description of a Camtrap DP package: `datapackage.json`, after the standard's profile.

Profile: https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json. What the data cannot tell (who
made it, after which design) a person says in a file of the profile's own property names.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trapline.errors import UsageError
from trapline.storage import store

STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
TABLES = ("deployments", "media", "observations")

SamplingDesign = Literal[
    "simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic"
]


class _Open(BaseModel):
    """Keeps what the profile allows besides."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Contributor(_Open):
    """A person or organisation."""

    title: str = Field(min_length=1)


class Project(_Open):
    """The study that the photographs come from."""

    title: str = Field(min_length=1)
    samplingDesign: SamplingDesign
    captureMethod: tuple[Literal["activityDetection", "timeLapse"], ...] = Field(min_length=1)
    individualAnimals: bool


class Description(_Open):
    """What a person has to say of a package; other properties of the profile (`licenses`, `keywords` …) are kept."""

    contributors: tuple[Contributor, ...] = Field(min_length=1)
    project: Project
    title: str | None = None


def read(url: str) -> Description:
    """The description in a YAML or JSON file.

    Raises:
        UsageError: it is none, or lacks what the profile requires.
        StorageError, TransientError: it cannot be read.
    """
    try:
        return Description.model_validate(yaml.safe_load(store.read_text(url)))
    except yaml.YAMLError as error:
        raise UsageError(f"{url}: neither YAML nor JSON: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{url}: {place}: {first['msg']}; the standard's profile requires it") from error


def descriptor(
    description: Description,
    title: str,
    deployments: Sequence[tuple[float, float, str, str]],
    taxa: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The content of `datapackage.json`.

    Args:
        description: what a person says.
        title: of the package.
        deployments: latitude, longitude, first and last day (ISO 8601) of each; at least one.
        taxa: `scientificName` and what else the profile has of each taxon that was observed.
    """
    kept = description.model_dump(mode="json", exclude_none=True)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "package"
    return {
        **kept,
        "resources": [
            {
                "name": table,
                "path": f"{table}.csv.gz",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "compression": "gz",
                "schema": f"{STANDARD}/{table}-table-schema.json",
            }
            for table in TABLES
        ],
        "profile": f"{STANDARD}/camtrap-dp-profile.json",
        "name": kept.get("name", slug),
        "id": kept.get("id", str(uuid4())),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": title,
        "project": kept["project"] | {"observationLevel": ["media", "event"]},
        "spatial": _around([(longitude, latitude) for latitude, longitude, _, _ in deployments]),
        "temporal": {"start": min(each[2] for each in deployments), "end": max(each[3] for each in deployments)},
        "taxonomic": list(taxa),
    }


def _around(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """GeoJSON: the rectangle around all points, counterclockwise (RFC 7946)."""
    west, south = (min(values) for values in zip(*points, strict=True))
    east, north = (max(values) for values in zip(*points, strict=True))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
