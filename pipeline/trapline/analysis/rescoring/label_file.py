"""Read a CSV of labels: the species of some images, and how the images are named.

A label names an image by its `image_uri`, by the end of its path if that is unique (`cam1/IMG_0001.JPG`), or by its
content. If no image's path ends exactly so, the path is compared as browsers, Windows and macOS may have written it:
with escapes (`IMG%200001.jpg`), in other case, and with accents as separate characters.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from trapline.analysis import csv_input
from trapline.errors import UsageError

# What people call a column of paths.
_PATH_COLUMNS = ("image_uri", "file", "path", "filename", "filepath")

# How well a label names an image: by its whole URI, by the end of its path, by that in another spelling.
WHOLE, ENDING, RESPELLED = range(3)

# By a number of segments: the paths of so many, each once, and the positions of their labels.
_Endings = dict[int, tuple[pa.Array, pa.Array]]


@dataclass(frozen=True)
class Labels:
    """A CSV file of labels.

    Attributes:
        url: of the file.
        column: column of the rows that the keys are compared with: `image_uri` or `content_sha256`.
        keys: strings, or binary(32); each once.
        species: strings, one per key.
        cameras: strings, one per key; null where the file names none.
    """

    url: str
    column: str
    keys: pa.Array
    species: pa.Array
    cameras: pa.Array

    def matches(self, values: pa.Array) -> pa.Table:
        """Return row, label and grade: the positions of values and of the labels that name them, and how well.

        A value of `image_uri` is named by a key that equals it (WHOLE), and by one whose path segments it ends with
        (ENDING, or RESPELLED); `#`, which ends a shard, ends a segment too.
        """
        found = [(pc.index_in(values, self.keys), WHOLE)]
        if self.column == "image_uri":
            paths = pc.replace_substring(values, "#", "/")
            found += [(place, ENDING) for place in _ending(paths, self._endings)]
            found += [(place, RESPELLED) for place in _ending(_plain(paths), self._plain_endings)]
        tables = []
        for labels, grade in found:
            rows = pc.indices_nonzero(labels.is_valid())
            same = pa.array([grade] * len(rows), pa.int8())
            tables.append(pa.table({"row": rows, "label": labels.take(rows).cast(pa.int64()), "grade": same}))
        return pa.concat_tables(tables)

    @cached_property
    def _endings(self) -> _Endings:
        return _by_length(map(_path, self.keys.to_pylist()))

    @cached_property
    def _plain_endings(self) -> _Endings:
        paths = pa.array([_path(unquote(key)) for key in self.keys.to_pylist()], pa.string())
        plain = _plain(paths).to_pylist()
        count = Counter(plain)
        # Of labels that differ in their spelling alone none stands for an image in a third one.
        return _by_length((path if count[path] == 1 else None) for path in plain)


def read(url: str) -> Labels:
    """Read a CSV file with the columns species, image_uri (or file, path) or content_sha256 (hex), and camera if known.

    Raises:
        UsageError: a row lacks its key or species, an image is labelled twice, or a hash is none.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["species"], [*_PATH_COLUMNS, "content_sha256", "camera"])
    column = next((name for name in (*_PATH_COLUMNS, "content_sha256") if name in table.column_names), None)
    if column is None:
        raise UsageError(f"{url}: has neither a column 'image_uri' (or 'file') nor 'content_sha256'; add one")
    keys, species = table.column(column).to_pylist(), table.column("species").to_pylist()
    lines = csv_input.lines(table).tolist()
    seen: dict[str, int] = {}
    for position, (key, name) in enumerate(zip(keys, species, strict=True)):
        where = f"{url}, line {lines[position]}"
        if not key or not name:
            raise UsageError(f"{where}: lacks {'species' if key else column}; fill it in, or leave the line out")
        first = seen.setdefault(key.lower() if column == "content_sha256" else key, position)
        if first != position:
            other = f"also labelled on line {lines[first]}"
            as_ = "the same" if species[first] == name else f"{species[first]!r} there and {name!r} here"
            raise UsageError(f"{where}: {key} is {other} ({as_}); leave one")
    cameras = table.column("camera").to_pylist() if "camera" in table.column_names else [None] * len(keys)
    values = _hashes(url, table, keys) if column == "content_sha256" else pa.array(keys, pa.string())
    compared = "content_sha256" if column == "content_sha256" else "image_uri"
    return Labels(url, compared, values, pa.array(species, pa.string()), pa.array(cameras, pa.string()))


def _hashes(url: str, table: pa.Table, keys: list[str]) -> pa.Array:
    values = []
    for position, key in enumerate(keys):
        try:
            values.append(bytes.fromhex(key))
        except ValueError:
            values.append(b"")
        if len(values[-1]) != 32:
            raise UsageError(f"{url}, line {csv_input.line(table, position)}: {key} is no SHA-256 in hex (64 digits)")
    return pa.array(values, pa.binary(32))


def _path(key: str) -> str:
    return key.replace("\\", "/").replace("#", "/").removeprefix("./").lstrip("/")


def _plain(paths: pa.Array) -> pa.Array:
    """Return paths in one case, and with accents as parts of their letters."""
    return pc.utf8_lower(pc.utf8_normalize(paths, "NFC"))


def _by_length(paths: Iterable[str | None]) -> _Endings:
    """Return the paths of labels in their order, without those that are None."""
    grouped: dict[int, dict[str, int]] = defaultdict(dict)
    for position, path in enumerate(paths):
        if path is not None:
            grouped[path.count("/") + 1].setdefault(path, position)
    return {
        segments: (pa.array(found.keys(), pa.string()), pa.array(found.values(), pa.int64()))
        for segments, found in grouped.items()
    }


def _ending(paths: pa.Array, endings: _Endings) -> Iterator[pa.Array]:
    """Yield, for each number of segments, the position of the label that each path ends with, or null."""
    for segments, (wanted, positions) in endings.items():
        tails = pc.extract_regex(paths, rf"(?:^|/)(?P<tail>(?:[^/]*/){{{segments - 1}}}[^/]*)$")
        yield positions.take(pc.index_in(pc.struct_field(tails, "tail"), wanted))
