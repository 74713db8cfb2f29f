"""Compose the description of a Camtrap DP package, `datapackage.json`, by the standard's profile.

What is not in the data (who made the package, by which sampling design) comes from a user's file, under the profile's
property names. The rules of the profile are in `schemas/profile.json`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from uuid import uuid4

import yaml
from jsonschema import Draft7Validator, FormatChecker

from trapline.errors import UsageError
from trapline.storage import store

STANDARD = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2"
TABLES = ("deployments", "media", "observations")

# What this module or the data supply, whatever a person writes.
_COMPUTED = ("resources", "profile", "created", "spatial", "temporal", "taxonomic")
_OBSERVATION_LEVELS = ["media", "event"]


@dataclass(frozen=True)
class Description:
    """A user's description of a package.

    Attributes:
        url: of the file.
        properties: of the profile; unknown ones are kept.
    """

    url: str
    properties: dict[str, Any]

    @property
    def title(self) -> str | None:
        """Return the title of the package."""
        title: str | None = self.properties.get("title")
        return title

    @property
    def capture_methods(self) -> list[str]:
        """Return by which methods images were taken."""
        methods: list[str] = self.properties["project"]["captureMethod"]
        return methods


def read(url: str) -> Description:
    """Return the description in a YAML or JSON file.

    Raises:
        UsageError: the file is neither, or the profile does not allow what it says.
        StorageError, TransientError: it cannot be read.
    """
    try:
        found = yaml.load(store.read_text(url), _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{url}: neither YAML nor JSON: {' '.join(str(error).split())}") from error
    return parse(found, url)


def parse(found: Any, url: str) -> Description:
    """Return the description that was read from a file; raises as `read` does."""
    if not isinstance(found, dict):
        raise UsageError(f"{url}: no properties of a package; write contributors and project")
    schema = profile()
    properties = _typed(found, schema)
    kept = {name: value for name, value in properties.items() if name not in _COMPUTED}
    if isinstance(kept.get("project"), dict):
        kept["project"] |= {"observationLevel": _OBSERVATION_LEVELS}
    schema["required"] = [name for name in schema["required"] if name not in _COMPUTED]
    _check(kept, schema, url)
    return Description(url, kept)


def profile() -> dict[str, Any]:
    """Return the rules of the profile, as a JSON Schema."""
    text = files("trapline.analysis.camtrapdp").joinpath("schemas/profile.json").read_text("utf-8")
    plain: dict[str, Any] = json.loads(text)
    return plain


def compose(
    description: Description,
    title: str,
    deployments: Sequence[tuple[float, float, str, str]],
    taxa: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the content of `datapackage.json`.

    Args:
        description: what a person has written.
        title: of the package.
        deployments: latitude, longitude, first and last day (ISO 8601) of each; at least one.
        taxa: `scientificName` and other properties in the profile of each taxon that was observed.

    Raises:
        UsageError: the profile does not allow it.
    """
    kept = description.properties
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "package"
    content = {
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
        "spatial": _around([(longitude, latitude) for latitude, longitude, _, _ in deployments]),
        "temporal": {"start": min(each[2] for each in deployments), "end": max(each[3] for each in deployments)},
        "taxonomic": list(taxa),
    }
    _check(content, profile(), description.url)
    return content


def _check(content: Mapping[str, Any], schema: Mapping[str, Any], url: str) -> None:
    """Raise UsageError with the first property that the profile does not allow."""
    errors = Draft7Validator(schema, format_checker=FormatChecker()).iter_errors(content)
    found = sorted(_in_words(error) for error in errors)
    if found:
        place, problem = found[0]
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise UsageError(f"{url}: {place}: {problem}{more}; the profile of Camtrap DP requires it")


def _in_words(error: Any) -> tuple[str, str]:
    """Return which property breaks a rule, and how."""
    place = list(map(str, error.absolute_path))
    if error.validator == "required":
        (missing, *_) = [name for name in error.validator_value if name not in error.instance]
        return ".".join([*place, missing]), "is missing"
    known = {
        "uniqueItems": "has an entry twice",
        "minItems": f"needs at least {error.validator_value} entries",
        "minLength": "is empty",
        "anyOf": "needs a name or a path",
    }
    return ".".join(place), known.get(error.validator) or str(error.message)


class _Scalar(str):
    """A number as it is written: `1.0` is a version in one property and a number in another."""


class _Loader(yaml.SafeLoader):
    """Read YAML 1.2 and JSON, where `no`, `007`, `12:30` and dates are text; keep numbers as they are written."""


_NUMBER = re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _Scalar(node.value))


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Give each number the type that the profile says: text as it was written, or a number."""
    if isinstance(value, _Scalar):
        return str(value) if schema.get("type") == "string" else json.loads(value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {str(name): _typed(each, known.get(name, {})) for name, each in value.items()}
    if isinstance(value, list):
        return [_typed(each, schema.get("items", {})) for each in value]
    return value


def _around(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the rectangle around all points as GeoJSON, counterclockwise (RFC 7946)."""
    west, south = (min(values) for values in zip(*points, strict=True))
    east, north = (max(values) for values in zip(*points, strict=True))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}
