"""Which deployment and which camera an image belongs to, in SQL, from its path, its sidecar or its EXIF.

A source is one of

    site={site}/{camera}/…     a pattern of the image's path: that of its shard, and the path inside it
    metadata:FIELD             a field of the image's sidecar: `station`, `deployment.id`, `site/camera`
    serial                     the serial number of the camera in EXIF

If there are several, the first one that an image has counts. The value `deployment` is the deployment's name, and
`camera` is the camera's. Without a `deployment`, all values joined by `/` are the name; without a `camera`, each
deployment has one camera.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trapline.analysis.sql import literal
from trapline.errors import UsageError
from trapline.sources.file_types import shard_format

_METADATA = "metadata:"
_SERIAL = "serial"

# What a pattern is matched with: the shard's URI and the path inside it are two values, and both may hold a `#`.
# In a pattern it stands for itself, or for the end of the shard, as people copy it from an `image_uri`.
_PATH = "concat_ws('/', shard, key)"
_WITHIN = "[^/]"
_TOKENS = re.compile(r"\{(?P<name>[^{}]*)\}|(?P<any>\*\*|…|\.\.\.)|(?P<star>\*)|(?P<hash>#)|(?P<text>[^{}*…#.]+|.)")


@dataclass(frozen=True)
class Source:
    """Where the deployment of an image is looked up.

    Attributes:
        text: as the user gave it.
        values: SQL expression by the name of each value; null or empty where the image does not say it.
    """

    text: str
    values: dict[str, str]

    @property
    def says(self) -> str:
        """SQL: whether an image has all values."""
        return " and ".join(f"{_filled(value)} is not null" for value in self.values.values())

    @property
    def deployment(self) -> str:
        """SQL: the deployment's name, where the source says something."""
        named = self.values.get("deployment")
        return _filled(named) if named else f"concat_ws('/', {', '.join(map(_filled, self.values.values()))})"

    @property
    def camera(self) -> str:
        """SQL: the camera's name, where the source says something."""
        named = self.values.get("camera")
        return _filled(named) if named else self.deployment

    @property
    def site(self) -> str:
        """SQL: the site's name: the value that is called so, or else the first."""
        return _filled(self.values.get("site") or next(iter(self.values.values())))

    @property
    def station(self) -> str:
        """SQL: a camera's name that no camera of another deployment has."""
        apart = {"deployment", "camera"} <= self.values.keys()
        return f"concat_ws('/', {self.deployment}, {self.camera})" if apart else self.deployment


def parse(text: str) -> Source:
    """Parse a source as it is written on the command line; raise UsageError if it is none."""
    if text == _SERIAL:
        return Source(text, {"deployment": "camera_serial"})
    if text.startswith(_METADATA):
        return _metadata(text)
    return _pattern(text)


def located(sources: Sequence[Source]) -> str:
    """Return the SQL of `deployment` and `camera` of an image row, both null where no source says something."""
    cases = {
        column: " ".join(f"when {source.says} then {getattr(source, column)}" for source in sources)
        for column in ("deployment", "camera")
    }
    return ", ".join(f"case {whens} end as {column}" for column, whens in cases.items())


def suggest(shard: str) -> str | None:
    """Return a pattern that takes the folder of a shard for the deployment; None if there is none."""
    *_, parent, folder = ["", "", *(shard.rpartition("/")[0] if shard_format(shard) else shard).split("/")]
    usable = parent and folder and not set("{}*…:") & set(parent) and ".." not in parent
    return f"{parent}/{{deployment}}/…" if usable else None


def _filled(value: str) -> str:
    return f"nullif(trim({value}), '')"


def _metadata(text: str) -> Source:
    fields = text.removeprefix(_METADATA).split("/")
    if '"' in text or not all(part for field in fields for part in field.split(".")):
        raise UsageError(
            f"{text}: no field of a sidecar; give metadata:FIELD, as in metadata:station or metadata:a/b.c"
        )
    values: dict[str, str] = {}
    for field in fields:
        path = literal("$" + "".join(f'."{part}"' for part in field.split(".")))
        # What is no JSON is an error of the whole query to DuckDB.
        values[_unused(field.rpartition(".")[2], values, text)] = (
            f"case when json_valid(metadata) then metadata ->> {path} end"
        )
    return Source(text, values)


def _pattern(text: str) -> Source:
    names: dict[str, str] = {}
    pattern = ""
    for token in _TOKENS.finditer(text):
        kind = token.lastgroup
        if kind == "name":
            name = token["name"]
            if not name.isidentifier():
                raise UsageError(f"{text}: {{{name}}} is no name; write letters, digits and _, as in {{camera}}")
            names[_unused(name, names, text)] = ""
            pattern += f"({_WITHIN}+)"
        elif kind == "text" and token["text"] in "{}":
            raise UsageError(f"{text}: a brace without its other half; write names as in {{camera}}")
        else:
            pattern += {"any": ".*?", "star": f"{_WITHIN}*", "hash": "[/#]"}.get(kind or "") or re.escape(token[0])
    if not names:
        raise UsageError(
            f"{text}: neither a pattern with names ({{site}}/{{camera}}/DCIM), nor metadata:FIELD, nor serial"
        )
    _refuse_vague(text)
    regex = literal(f"(?s)(?:^|/){pattern}(?:/|$)")
    found = f"regexp_extract({_PATH}, {regex}, [{', '.join(map(literal, names))}])"
    return Source(text, {name: f"{found}[{literal(name)}]" for name in names})


def _refuse_vague(text: str) -> None:
    """Refuses names that nothing holds in place: they would match the first folders of any URI."""
    for run in re.split(r"\*\*|…|\.\.\.", text):
        held = re.sub(r"\{[^{}]*\}|[*/#]", "", run)
        if "{" in run and not held:
            raise UsageError(
                f"{text}: could begin at any folder; write what stands beside the names, as in archive/{run.strip('/')}"
            )


def _unused(name: str, taken: dict[str, str], text: str) -> str:
    if name in taken:
        raise UsageError(f"{text}: names {name} twice")
    return name
