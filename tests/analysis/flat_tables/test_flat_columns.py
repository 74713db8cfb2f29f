"""The columns of the flat tables are such as Athena and BigQuery document that they take; neither can be run here."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.deployments import parse
from trapline.analysis.flat_tables import build
from trapline.analysis.flat_tables.flat_columns import flat_columns
from trapline.results.fingerprint import Fingerprint

CLASSES = ["owl", "a wren"]
EVERYTHING = columns(CLASSES, 2, feature_shapes={"features_stage4": (2, 1, 1)}, crops=True)
# Hive types that have their equal in BigQuery, Spark, Iceberg and R; a time as Parquet has it without a zone, in
# microseconds, which is BigQuery's DATETIME and Athena's timestamp.
TYPES = {pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.timestamp("us")}
# Which names of columns BigQuery keeps for itself.
KEPT = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """The files of tables with every column that there can be, of a shard each, one of them without any prediction."""
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
    failed = Planted("b.jpg", status="failed", error="empty: x")
    for name, planted in (("1.tar", [Planted("a.jpg"), Planted("a.jpg", (1, 0), (1, 2), crop=1)]), ("2.tar", [failed])):
        write_result(f"{tmp_path}/results", f"s3://in/{name}", name, planted, columns(CLASSES, 2, crops=True), mark)
    results = dataset.find(f"{tmp_path}/results")
    build.build(results, f"{tmp_path}/tables", ["in/{site}/…"], images_per_file=1)
    found = sorted((tmp_path / "tables").rglob("*.parquet"))
    assert len(found) == 2
    return found


def test_names_and_types_are_those_that_each_service_takes() -> None:
    found = flat_columns(EVERYTHING.schema, 5, (parse("in/{site}/{camera}"),))
    names = [column.name for column in found]
    assert len(set(names)) == len(names) < 100  # more need smaller pages, says BigQuery
    for column in found:
        assert re.fullmatch("[a-z][a-z0-9_]{0,127}", column.name)
        assert not column.name.startswith(KEPT)
        assert column.kind in TYPES, column.name
    assert {"captured_at", "species_5", "box_left", "deployment"} < set(names)


def test_every_file_has_the_same_columns_in_the_same_places(files: list[Path]) -> None:
    one, two = (pq.read_schema(file).remove_metadata() for file in files)
    assert one.equals(two)  # else BigQuery takes no wildcard
    assert set(one.types) <= TYPES


def test_files_are_encoded_and_named_as_each_service_reads_them(files: list[Path]) -> None:
    for file in files:
        # Hidden to Athena otherwise, and a column to whatever looks for partitions.
        assert re.fullmatch(r"images-\d+\.parquet", file.name)
        metadata = pq.read_metadata(file)
        for index in range(len(metadata.schema)):
            column = metadata.schema.column(index)
            assert (column.max_repetition_level, column.physical_type == "INT96") == (0, False)
            if column.name == "captured_at":
                logical = column.logical_type.to_json()
                assert '"isAdjustedToUTC":false,"timeUnit":"microseconds"' in logical
            stored = metadata.row_group(0).column(index)
            assert stored.compression == "ZSTD"
            assert set(stored.encodings) <= {"PLAIN", "RLE", "RLE_DICTIONARY", "BIT_PACKED"}
