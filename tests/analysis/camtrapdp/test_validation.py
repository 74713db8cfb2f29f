import json
import re
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checkout import ROOT
from trapline.analysis.camtrapdp import validation
from trapline.errors import UsageError

OFFICIAL = ROOT.parent / "shared" / "camtrap-dp-1.0.2"
SOUND: dict[str, dict[str, Any]] = {
    "deployments": {
        "deploymentID": "d1", "latitude": "52.1", "longitude": "1e1", "coordinateUncertainty": "3",
        "deploymentStart": "2024-05-01T00:00:00+02:00", "deploymentEnd": "2024-06-01T00:00:00Z", "baitUse": "false",
    },
    "media": {
        "mediaID": "m1", "deploymentID": "d1", "timestamp": "2024-05-02T00:00:00Z", "filePath": "s3://in/1.tar#a.jpg",
        "filePublic": False, "fileMediatype": "image/jpeg",
    },
    "observations": {
        "observationID": "o1", "deploymentID": "d1", "mediaID": "m1", "eventStart": "2024-05-02T00:00:00Z",
        "eventEnd": "2024-05-02T00:00:00Z", "observationLevel": "media", "observationType": "animal", "bboxX": 0.0,
        "bboxY": 0.5, "bboxWidth": 1e-15, "bboxHeight": 1.0, "classificationProbability": 1.0,
    },
}  # fmt: skip


def create(connection: duckdb.DuckDBPyConnection, table: str, *rows: dict[str, Any]) -> None:
    fields = [field["name"] for field in validation.schema(table)["fields"]]
    connection.register(table, pa.table({field: [row.get(field) for row in rows] for field in fields}))


def check(table: str, **cells: Any) -> None:
    """Check a table of one row, beside sound ones."""
    connection = duckdb.connect()
    for name, sound in SOUND.items():
        create(connection, name, sound | (cells if name == table else {}))
    validation.check(connection, table, {name: name for name in SOUND}, "place.csv")


@pytest.mark.parametrize("table", SOUND)
def test_a_sound_table_passes(table: str) -> None:
    check(table)


@pytest.mark.parametrize(
    ("table", "cells", "words"),
    [
        ("deployments", {"deploymentID": None}, "deployment None: deploymentID is empty"),
        ("deployments", {"deploymentID": "NA"}, "deployment NA: deploymentID NA is read as a missing value"),
        ("observations", {"scientificName": "NA"}, "observation o1: scientificName NA is read as a missing value"),
        ("media", {"fileName": "nan"}, "media file m1: fileName nan is read as a missing value"),
        ("deployments", {"latitude": "90.1"}, "deployment d1: latitude 90.1 is above 90"),
        ("deployments", {"latitude": "52,1"}, "deployment d1: latitude 52,1 is no number"),
        ("deployments", {"latitude": "inf"}, "deployment d1: latitude inf is no number"),
        ("deployments", {"cameraTilt": "1.5"}, "deployment d1: cameraTilt 1.5 is no integer"),
        ("deployments", {"coordinateUncertainty": "0"}, "deployment d1: coordinateUncertainty 0 is below 1"),
        ("deployments", {"baitUse": "yes"}, "deployment d1: baitUse yes is no boolean"),
        ("deployments", {"featureType": "bridge"}, "deployment d1: featureType bridge is none of roadPaved"),
        ("deployments", {"deploymentStart": "2024-05-01"}, "deployment d1: deploymentStart 2024-05-01 is no datetime"),
        ("deployments", {"deploymentStart": "2024-02-30T00:00:00Z"}, "2024-02-30T00:00:00Z is no datetime"),
        ("media", {"filePath": "/a.jpg"}, "media file m1: filePath /a.jpg does not match"),
        ("media", {"filePath": "a/../b.jpg"}, "filePath a/../b.jpg does not match"),
        ("media", {"fileMediatype": "jpeg"}, "fileMediatype jpeg does not match"),
        ("media", {"deploymentID": "d2"}, "media file m1: deploymentID d2 is in no row of deployments"),
        ("media", {"captureMethod": "video"}, "captureMethod video is none of activityDetection, timeLapse"),
        ("observations", {"mediaID": "m2"}, "observation o1: mediaID m2 is in no row of media"),
        ("observations", {"observationType": "bird"}, "observationType bird is none of animal"),
        ("observations", {"classificationProbability": 1.0000001}, "classificationProbability 1.0000001 is above 1"),
        ("observations", {"bboxWidth": 0.0}, "bboxWidth 0.0 is below 1e-15"),
        ("observations", {"count": 0}, "count 0 is below 1"),
        ("observations", {"eventEnd": None, "observationLevel": None}, r"eventEnd is empty \(and 1 more\)"),
    ],
)  # fmt: skip
def test_a_cell_that_the_standard_does_not_allow_is_named(table: str, cells: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"^place.csv: [^\n]*{words}"):
        check(table, **cells)


def test_a_key_is_unique() -> None:
    connection = duckdb.connect()
    create(connection, "deployments", SOUND["deployments"], SOUND["deployments"])
    with pytest.raises(UsageError, match="deployment d1: deploymentID stands there twice"):
        validation.check(connection, "deployments", {"deployments": "deployments"}, "place.csv")


@given(st.text(alphabet="./~a\nä:", max_size=8))
def test_a_pattern_in_re2_allows_what_the_standards_does(text: str) -> None:
    for official, mine in validation._PATTERNS.items():
        for value in (text, f"image/{text}"):
            found = duckdb.execute("select regexp_full_match($1, $2)", [value, mine]).fetchall()[0][0]
            assert found == bool(re.fullmatch(official, value))


def test_all_patterns_of_the_schemas_are_known() -> None:
    found = {field["constraints"].get("pattern") for table in SOUND for field in validation.schema(table)["fields"]}
    assert found - {None} == set(validation._PATTERNS)


@pytest.mark.parametrize("table", SOUND)
def test_the_schemas_have_the_official_rules(table: str) -> None:
    if not OFFICIAL.is_dir():
        pytest.skip("the official schemas are not on this machine")
    official = json.loads((OFFICIAL / f"{table}-table-schema.json").read_text())
    mine = validation.schema(table)
    keep = ("name", "type", "format", "constraints", "unit")
    assert mine["fields"] == [{key: field[key] for key in keep if key in field} for field in official["fields"]]
    for name in ("missingValues", "primaryKey", "foreignKeys"):
        assert mine.get(name) == official.get(name)
