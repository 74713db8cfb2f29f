"""Choose the column of a Parquet file that holds the images, and the columns that describe them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trapline.errors import ShardBroken
from trapline.sources.signatures import looks_like_image

# Names of image columns in public data sets, the most telling first.
_IMAGE_NAMES = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
_IMAGE_WORDS = ("image", "img", "photo", "picture", "jpg", "jpeg", "png", "frame")
# Columns that are derived from an image, and may be images themselves.
_DERIVED_WORDS = ("thumb", "preview", "mask", "hash", "sha", "md5", "digest", "checksum", "embedding", "small", "crop")
NAME_COLUMNS = ("path", "file_path", "image_path", "file_name", "filename", "key", "__key__")


@dataclass(frozen=True)
class ImageColumn:
    """Where the images are.

    Attributes:
        path: the column; for a struct also the field inside it, at any depth.
        beside: path of the field with their names, in the same struct; None if there is none.
    """

    path: tuple[str, ...]
    beside: tuple[str, ...] | None

    @property
    def name(self) -> str:
        """The column's name as `--image-column` takes it."""
        return ".".join(self.path[:-1] if self.path[1:] and self.path[-1] == "bytes" else self.path)


@dataclass(frozen=True)
class Columns:
    """Which columns are read.

    Attributes:
        image: the images.
        others: columns without anything binary, which describe the images.
        alternatives: names of other columns that hold images, too.
    """

    image: ImageColumn
    others: tuple[str, ...]
    alternatives: tuple[str, ...] = ()


def choose(
    schema: pa.Schema, uri: str, wanted: str | None, first_cells: Callable[[Sequence[ImageColumn]], list[list[Any]]]
) -> Columns:
    """Choose the columns by name, by type and by the first rows.

    Args:
        schema: of the file.
        uri: of the file, for messages.
        wanted: name of the image column if the user gives one.
        first_cells: reads the first few cells of some image columns; called if there are several.

    Raises:
        ShardBroken: no column holds images, or two have the same name.
    """
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise ShardBroken(f"{uri}: {_counted(twice[0], schema)} columns are called {twice[0]!a}; rename all but one")
    candidates = [column for field in schema for column in _image_columns(field)]
    others = tuple(field.name for field in schema if not _holds_bytes(field.type))
    if wanted is not None:
        chosen = next((column for column in candidates if wanted in (column.name, ".".join(column.path))), None)
        if chosen is None:
            names = ", ".join(column.name for column in candidates[:20]) or "none"
            raise ShardBroken(f"{uri}: no image column {wanted!a}; those of a type that may hold images: {names}")
        return Columns(chosen, others)
    if not candidates:
        columns = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:20])
        raise ShardBroken(f"{uri}: no column of images (binary, or a struct with `bytes`) among {columns[:1000]}")
    if len(candidates) == 1:
        return Columns(candidates[0], others)
    hugging_face = _hugging_face_images(schema)
    candidates.sort(key=lambda column: _rank(column, hugging_face))
    cells = first_cells(candidates)
    real = [column for column, some in zip(candidates, cells, strict=True) if any(map(_is_image, some))]
    chosen = (real or candidates)[0]
    return Columns(chosen, others, tuple(column.name for column in real if column is not chosen))


def _counted(name: str, schema: pa.Schema) -> int:
    return int(schema.names.count(name))


def _is_image(cell: Any) -> bool:
    return isinstance(cell, bytes) and looks_like_image(cell[:16])


def _rank(column: ImageColumn, hugging_face: set[str]) -> tuple[bool, bool, int, bool, bool]:
    """Return a sort key: the smaller, the more likely the column holds the images."""
    name = column.name.lower()
    exact = _IMAGE_NAMES.index(name) if name in _IMAGE_NAMES else len(_IMAGE_NAMES)
    return (
        any(word in name for word in _DERIVED_WORDS),
        column.path[0] not in hugging_face,
        exact,
        not any(word in name for word in _IMAGE_WORDS),
        column.beside is None,
    )


def _hugging_face_images(schema: pa.Schema) -> set[str]:
    """Return the columns that `datasets` has declared to be images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name for name, feature in features.items() if feature.get("_type") == "Image"}
    except (AttributeError, KeyError, TypeError, ValueError):
        return set()


def _image_columns(field: pa.Field, above: tuple[str, ...] = (), beside: Any = None) -> Iterator[ImageColumn]:
    kind = plain_type(field.type)
    path = (*above, field.name)
    if pa.types.is_struct(kind):
        named = kind.get_field_index("path")
        is_text = named >= 0 and _is_text(plain_type(kind.field(named).type))
        for part in kind.fields:
            yield from _image_columns(part, path, (*path, "path") if is_text else None)
    elif _is_bytes(kind):
        yield ImageColumn(path, beside)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether a type has anything binary in it, at any depth."""
    kind = plain_type(kind)
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return _is_bytes(kind) or bool(pa.types.is_fixed_size_binary(kind))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type inside dictionary and extension types."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
