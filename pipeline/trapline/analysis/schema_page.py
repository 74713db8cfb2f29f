"""Generate the page that documents the row and the footer, `docs/schema.md`, from the code that writes them.

`python -m jobs.docs` writes it; a test fails where page and code differ.
"""

import inspect
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from trapline.results.footer import Footer
from trapline.results.schema import CROP_FIELDS, IMAGE_FIELDS, SCHEMA_VERSION, Columns

_STAGES = ("stage1", "stage2", "stage3", "stage4")
_ALL = Columns(
    classes=("a", "b"),
    embedding_size=2,
    feature_shapes=dict.fromkeys(_STAGES, (1, 1, 2)),
    top_k=2,
    probabilities=True,
    embedding="float32",
    crops=True,
)
# What leaves out columns, and which it leaves out is asked of `Columns` itself.
_WITHOUT = {
    "absent for a model without classifier": replace(_ALL, classes=()),
    "absent with `--probabilities top-k`": replace(_ALL, probabilities=False),
    "absent with `--embedding none`": replace(_ALL, embedding="none"),
    "only with `--features`": replace(_ALL, feature_shapes={}),
    "only with `--detections`": replace(_ALL, crops=False),
}
# How long the lists are: most of them as the model has it.
_WIDTHS = {"box": "4", "probabilities": "C", "embedding": "D"} | {f"features_{stage}": "c·h·w" for stage in _STAGES}

_FOOTER_KEYS = {
    "trapline.version": "the version of Trapline that wrote the file",
    "trapline.fingerprint": "everything that can change a row, as JSON; equal for all files of an OUTPUT, except "
    "for options for clips in files without clips",
    "trapline.shard": "the shard, and what became of its images, as JSON (below)",
    "trapline.classes": "names of the C classes as a JSON array, in the order of `probabilities`",
}


def page() -> str:
    """Return the page, in Markdown."""
    return "\n".join([*_rows(), "", *_footer(), ""])


def _rows() -> Iterator[str]:
    yield f"""# The schema of a result

There is one Parquet file per shard, with one row per image and per clip, one per sampled frame of a clip, and with
`--detections` one per crop. This is schema version {SCHEMA_VERSION}; the page is generated from the code, and
`trapline schema` prints it. C is the number of the model's classes, D the width of its embedding (768 for the base
models), and c·h·w the size of a feature map. Every column except `image_uri`, `key` and `status` can be null.

| column | Arrow | DuckDB | |
|---|---|---|---|"""
    kinds = _in_duckdb(_ALL.schema)
    for field in _ALL.schema:
        absent = [reason for reason, columns in _WITHOUT.items() if field.name not in columns.schema.names]
        described = "; ".join([_described(field), *absent])
        yield f"| `{field.name}` | {_arrow(field)} | {kinds[field.name]} | {described} |"
    yield f"""
The first {len(IMAGE_FIELDS)} columns are what decoding found out, for every image. The next {len(CROP_FIELDS)}, with
`--detections` only, are what the detector found. (`image_uri`, `frame_seconds`, `crop`) is unique, and
`frame_seconds IS NULL AND crop IS NULL` gives each image and each clip once. The other columns are the model's
prediction; they are null if `status` is `failed`, and for an image with crops they are in the rows of the crops. In a
clip's own row, `probabilities`, `energy` and `embedding` are the means over its frames, `species`, `probability` and
`top_k` are those of the mean probabilities, and feature maps are null. The row of a frame repeats its clip's row,
except for `frame_seconds`, `metadata` and the prediction."""


def _described(field: pa.Field) -> str:
    text: str = field.metadata[b"description"].decode()
    return re.sub(r"feature map \S+", "feature map", text)


def _arrow(field: pa.Field) -> str:
    kind = field.type
    if pa.types.is_dictionary(kind):
        return f"dictionary of {kind.value_type}"
    if pa.types.is_list(kind) and field.name in _WIDTHS:
        value = "float32 or float16" if field.name == "embedding" else _scalar(kind.value_type)
        return f"list of {value} [{_WIDTHS[field.name]}]"
    if pa.types.is_list(kind):
        inner = ", ".join(f"{child.name}: {_scalar(child.type)}" for child in kind.value_type)
        return f"list of struct ({inner})"
    return _scalar(kind)


def _scalar(kind: pa.DataType) -> str:
    return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _in_duckdb(schema: pa.Schema) -> dict[str, str]:
    """Return the type that DuckDB gives each column of a file."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = str(Path(folder) / "empty.parquet")
        pq.write_table(schema.empty_table(), path)
        relation = connection.read_parquet(path)
        return {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}


def _footer() -> Iterator[str]:
    yield """## The footer

Key-value metadata of each file; `SELECT * FROM parquet_kv_metadata('FILE')` in DuckDB, `pyarrow.parquet.read_metadata`
in Python.

| key | |
|---|---|"""
    for key, text in _FOOTER_KEYS.items():
        yield f"| `{key}` | {text} |"
    yield """
`trapline.shard` holds

| | |
|---|---|"""
    for name, text in _attributes(Footer):
        if name != "fingerprint":  # which has a key of its own
            yield f"| `{name}` | {text.rstrip('.')} |"


def _attributes(kind: type) -> list[tuple[str, str]]:
    """Names and descriptions of a dataclass's fields, from the `Attributes` of its docstring."""
    _, _, text = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return [(name, described) for name, described in re.findall(r"^    (\w+): (.+)$", text, re.MULTILINE)]
