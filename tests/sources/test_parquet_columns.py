import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from trapline.errors import ShardBroken
from trapline.sources.parquet_columns import Columns, ImageColumn, choose

JPEG, NOISE = b"\xff\xd8\xff\xe0" + bytes(12), b"\1" * 16
PATHS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def chosen(columns: dict[str, Any], wanted: str | None = None, metadata: dict[str, str] | None = None) -> Columns:
    table = pa.table(columns).replace_schema_metadata(metadata)

    def first_cells(candidates: Sequence[ImageColumn]) -> list[list[Any]]:
        found = []
        for candidate in candidates:
            cells = table.column(candidate.path[0]).to_pylist()
            for name in candidate.path[1:]:
                cells = [cell and cell[name] for cell in cells]
            found.append(cells)
        return found

    return choose(table.schema, "a.parquet", wanted, first_cells)


@pytest.mark.parametrize(
    ("columns", "name", "alternatives"),
    [
        ({"thumbnail": [JPEG], "photo": [JPEG]}, "photo", ("thumbnail",)),
        ({"sha256": [NOISE], "photo": [JPEG]}, "photo", ()),
        ({"image": [NOISE], "raw": [JPEG]}, "raw", ()),  # what the first rows show has the last word
        ({"image_sha": [NOISE], "x": [NOISE]}, "x", ()),
        ({"a": [JPEG], "b": [JPEG]}, "a", ("b",)),
        ({"a": [JPEG], "b": pa.array([{"bytes": JPEG, "path": "p"}], PATHS)}, "b", ("a",)),
        ({"camera_image": [JPEG], "b": [JPEG]}, "camera_image", ("b",)),
        ({"IMAGE": [JPEG], "jpg": [JPEG]}, "IMAGE", ("jpg",)),
        ({"small": [None, None], "image": [None, JPEG]}, "image", ()),
        ({"one": [JPEG]}, "one", ()),
        ({"one": [NOISE]}, "one", ()),
        ({"photo": [{"thumb": JPEG, "full": JPEG, "path": "p"}]}, "photo.full", ("photo.thumb",)),
        ({"outer": [{"inner": {"bytes": JPEG, "path": "p"}}]}, "outer.inner", ()),
    ],
)
def test_the_column_of_images_is_found(columns: dict[str, Any], name: str, alternatives: tuple[str, ...]) -> None:
    found = chosen(columns)
    assert (found.image.name, found.alternatives) == (name, alternatives)


def test_what_datasets_declares_to_be_an_image_is_believed() -> None:
    features = {"info": {"features": {"b": {"_type": "Image"}, "n": {"dtype": "int64", "_type": "Value"}}}}
    found = chosen({"a": [JPEG], "b": [JPEG]}, metadata={"huggingface": json.dumps(features)})
    assert (found.image.name, found.alternatives) == ("b", ("a",))
    assert chosen({"a": [JPEG], "b": [JPEG]}, metadata={"huggingface": "[1]"}).image.name == "a"


def test_the_user_may_name_it() -> None:
    columns = {"image": [JPEG], "crop": [JPEG], "s": pa.array([{"bytes": JPEG, "path": "p"}], PATHS), "n": [1]}
    assert chosen(columns, "crop") == Columns(ImageColumn(("crop",), None), ("n",))
    assert chosen(columns, "s").image == chosen(columns, "s.bytes").image == ImageColumn(("s", "bytes"), ("s", "path"))
    with pytest.raises(
        ShardBroken, match=r"no image column 'n'; those of a type that may hold images: image, crop, s$"
    ):
        chosen(columns, "n")


def test_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([JPEG]), pa.array([JPEG])], names=["image", "image"])
    with pytest.raises(ShardBroken, match="2 columns are called 'image'"):
        choose(table.schema, "a.parquet", None, lambda _: [])


def test_what_holds_several_images_a_row_is_refused_by_name() -> None:
    for column in ([[JPEG]], pa.array([[{"bytes": JPEG, "path": "p"}]], pa.list_(PATHS))):
        with pytest.raises(ShardBroken, match=r"no column of images .* among frames \(list<"):
            chosen({"frames": column})


def test_nothing_binary_describes_an_image() -> None:
    columns = {
        "image": [JPEG],
        "n": [1],
        "hash": pa.array([NOISE], pa.binary(16)),
        "masks": [[NOISE]],
        "s": [{"t": "x"}],
    }
    assert chosen(columns).others == ("n", "s")
