import base64
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from tests.support.reading import read_broken
from trapline.errors import ShardBroken
from trapline.sources.parquet_images import ImageTable

SIZE = 50_000
PATHS = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Counting(io.BytesIO):
    """Knows how many bytes were read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def written(columns: dict[str, Any] | pa.Table, rows_per_group: int = 3) -> Counting:
    sink = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, sink, row_group_size=rows_per_group, compression="none", use_dictionary=False)
    return Counting(sink.getvalue())


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"image": [b"0", b"1", b"2", b"3"]}, [f"row/{number:08d}" for number in range(4)]),
        ({"image": [b"0", None, b"2", b"3"], "key": ["a", "b", None, "a"]}, ["a", "b", "row/00000002", "a"]),
        ({"jpg": [b"0"], "path": ["p"], "file_name": ["f"], "n": [1]}, ["p"]),
        ({"jpg": [b"0", b"1"], "path": [None, "p"], "file_name": ["f", "f"]}, ["f", "p"]),
        ({"image": [b"0", b"1"], "path": [7, 8]}, ["row/00000000", "row/00000001"]),
        ({"image": pa.array([{"bytes": b"0", "path": "x"}, None, {"bytes": b"2", "path": None}], PATHS)}, ["x", "row/00000001", "row/00000002"]),
        ({"image": pa.array([{"bytes": b"0", "path": "x"}, {"bytes": b"1", "path": None}], PATHS), "key": ["k", "l"]}, ["x", "l"]),
        ({"path": [b"0", b"1"]}, ["row/00000000", "row/00000001"]),
        ({"image": [b"0"], "content": [b"other"], "key": [b"no text"]}, ["row/00000000"]),
    ],
)  # fmt: skip
def test_names_without_pictures_are_those_with_them(columns: dict[str, Any], names: list[str]) -> None:
    table = ImageTable(written(columns), "a.parquet")
    groups = range(table.groups)
    assert [name for group in groups for name in table.names(group)] == names
    assert [row.name for group in groups for row in table.rows(group)] == names


def test_names_and_one_group_are_read_without_the_pictures_of_others() -> None:
    pictures = [{"bytes": bytes([number]) * SIZE, "path": f"{number}.jpg"} for number in range(60)]
    stream = written({"image": pa.array(pictures, PATHS), "n": list(range(60))})
    table = ImageTable(stream, "a.parquet")
    names = [name for group in range(table.groups) for name in table.names(group)]
    assert names == [picture["path"] for picture in pictures]
    assert stream.taken < 10 * SIZE
    assert [row.data for row in table.rows(19)] == [picture["bytes"] for picture in pictures[57:]]
    assert stream.taken < 16 * SIZE


def test_metadata_is_a_column_verbatim_or_what_else_there_is() -> None:
    columns = {"image": [b"0", b"1"], "metadata": ['{ "a":1}', None], "key": ["k", "l"], "n": [1, float("nan")]}
    rows = list(ImageTable(written(columns), "a.parquet").rows(0))
    assert [row.metadata for row in rows] == ['{ "a":1}', '{"metadata": null, "n": null}']
    assert next(ImageTable(written({"image": [b"0"]}), "a.parquet").rows(0)).metadata is None


def test_without_pictures_it_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ShardBroken, match=r"^s3://x/a\.parquet: no column of images .* among species \(string\), n \(int64\)$"
    ):
        ImageTable(written({"species": ["owl"], "n": [1]}), "s3://x/a.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"0", b"1"], pa.binary_view()),
        pa.array([{"bytes": b"0"}, {"bytes": b"1"}], pa.struct([("bytes", pa.binary_view())])),
        pa.array([b"0", b"1"]).dictionary_encode(),
        pa.array([{"bytes": b"0", "path": ""}, {"bytes": b"1", "path": None}], PATHS),
        pa.StructArray.from_arrays([pa.array([b"0", b"1"]).dictionary_encode()], ["bytes"]),
        pa.array([{"inner": {"bytes": b"0"}}, {"inner": {"bytes": b"1"}}]),
    ],
    ids=["view", "view in struct", "dictionary", "empty path", "dictionary in struct", "struct in struct"],
)
def test_images_are_read_of_every_type(column: pa.Array) -> None:
    table = ImageTable(written({"picture": column}), "a.parquet")
    rows = list(table.rows(0))
    assert [row.data for row in rows] == [b"0", b"1"]
    assert [row.name for row in rows] == ["row/00000000", "row/00000001"] == list(table.names(0))


def test_numbers_that_json_does_not_have_become_null_at_any_depth() -> None:
    nan, inf = float("nan"), float("inf")
    columns = {"image": [b"0"], "scores": [[1.0, nan, inf]], "box": [{"x": -inf, "y": [nan]}], "n": [nan]}
    (row,) = ImageTable(written(columns), "a.parquet").rows(0)
    assert json.loads(row.metadata or "", parse_constant=pytest.fail) == {
        "scores": [1.0, None, None],
        "box": {"x": None, "y": [None]},
        "n": None,
    }


def test_a_metadata_column_that_is_no_json_becomes_some() -> None:
    rows = ImageTable(written({"image": [b"0", b"1"], "metadata": ['{"k": NaN}', "words"]}), "a.parquet").rows(0)
    assert [row.metadata for row in rows] == ['{"metadata": "{\\"k\\": NaN}"}', '{"metadata": "words"}']


def test_a_page_that_hides_a_row_is_a_break() -> None:
    data = bytearray(written({"image": [b"0", b"1", b"2", b"3", b"4", b"5"], "n": [1, 2, 3, 4, 5, 6]}).getvalue())
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    start = chunk.data_page_offset
    header = data[start : start + 40]
    # Thrift's compact protocol: field 1 of the data page header, the number of values, as a zigzag varint: 3 is 6.
    place = header.index(b"\x2c\x15\x06") + 2
    data[start + place] = 2 * 2
    table = ImageTable(io.BytesIO(bytes(data)), "a.parquet")
    rows = table.rows(0)
    assert [next(rows).data, next(rows).data] == [b"0", b"1"]
    with pytest.raises(ShardBroken, match="row group 0 gave 2 of the 3 rows"):
        next(rows)
    assert [row.data for row in table.rows(1)] == [b"3", b"4", b"5"]


@pytest.mark.parametrize("count", [0, 2, 7])
def test_a_footer_that_counts_other_rows_than_its_row_groups_is_a_break(count: int, tmp_path: Path) -> None:
    data = written({"image": [b"0", b"1", b"2"]}).getvalue()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # Thrift's compact protocol: the number of rows as a zigzag varint, before the list of row groups.
    place = data.index(b"\x16\x06\x19", footer) + 1
    path = tmp_path / "a.parquet"
    path.write_bytes(data[:place] + bytes([2 * count]) + data[place + 1 :])
    outcome = read_broken(path)
    assert list(outcome.images.values()) == [b"0", b"1", b"2"]
    assert f"3 of the {count} rows that its footer counts" in str(outcome.error)


def test_a_column_whose_name_reads_like_a_path_is_not_in_the_metadata() -> None:
    columns = {"image": pa.array([{"bytes": b"0", "path": "x"}], PATHS), "image.bytes": [b"other"], "n": [1]}
    table = ImageTable(written(columns), "a.parquet", "image")
    assert [(row.name, row.data, row.metadata) for row in table.rows(0)] == [("x", b"0", '{"n": 1}')]


def test_a_result_of_ours_is_refused_by_name() -> None:
    table = pa.table({"image": [b"0"]}).replace_schema_metadata({"trapline.shard": "{}"})
    with pytest.raises(ShardBroken, match="is a result of Trapline"):
        ImageTable(written(table), "a.parquet")


class Keys(encryption.KmsClient):
    """Keeps each key as it is."""

    def __init__(self, _: object) -> None:
        encryption.KmsClient.__init__(self)

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("readable_footer", [False, True])
def test_an_encrypted_file_is_a_break(readable_footer: bool, tmp_path: Path) -> None:
    settings = encryption.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": ["image"]}, plaintext_footer=readable_footer
    )
    properties = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    table = pa.table({"image": [b"0"], "site": ["fen"]})
    pq.write_table(table, tmp_path / "a.parquet", encryption_properties=properties)
    assert "encrypted" in str(read_broken(tmp_path / "a.parquet").error)


def test_the_image_column_may_be_named_and_others_are_told() -> None:
    jpeg = b"\xff\xd8\xff\xe0 jpeg"
    table = ImageTable(written({"thumbnail": [jpeg + b"t"], "photo": [jpeg]}), "a.parquet")
    assert (table.image_column, table.alternatives) == ("photo", ("thumbnail",))
    assert [row.data for row in table.rows(0)] == [jpeg]
    table = ImageTable(written({"thumbnail": [jpeg + b"t"], "photo": [jpeg]}), "a.parquet", "thumbnail")
    assert (table.image_column, table.alternatives) == ("thumbnail", ())
    assert [row.data for row in table.rows(0)] == [jpeg + b"t"]
