"""The commands after `classify`, one after the other, as a person runs them."""

import csv
import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis.camtrapdp import descriptor
from trapline.cli.app import main

CHANGE = datetime(2024, 3, 31, 2, 59, 50)
DEPLOYMENTS = """deploymentID,latitude,longitude,deploymentStart,deploymentEnd,cameraID
spring,52.1,13.2,2024-01-01,2024-06-01T12:00:00,c1
summer,52.2,13.3,2024-06-01T12:00:00,2024-12-31,c1
"""
METADATA = """contributors: [{title: Ada, role: contact}]
version: 1.0
project: {title: Fens, samplingDesign: targeted, captureMethod: [timeLapse], individualAnimals: false}
"""


def at(moment: datetime | None, key: str) -> Planted:
    facts = {"format": "jpeg"} | ({"captured_at": moment} if moment else {})
    return Planted(key, np.log((0.7, 0.2, 0.1)), (0, 0), facts=facts)


def rows(folder: Path, table: str) -> list[dict[str, str]]:
    with gzip.open(folder / f"package/{table}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_results_are_rescored_made_into_events_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [at(CHANGE, "1.jpg"), at(CHANGE + timedelta(seconds=20), "2.jpg"), at(datetime(2024, 8, 1), "3.jpg"),
              at(None, "4.jpg"), at(datetime(2000, 1, 1), "5.jpg")]  # fmt: skip
    of = columns(["Vulpes vulpes", "Meles meles", "Sus scrofa"], 2)
    write_result(f"{tmp_path}/results", "/in/fen/c1", "fen/c1/images", images, of, loose=True)
    (tmp_path / "deployments.csv").write_text(DEPLOYMENTS)
    (tmp_path / "project.yaml").write_text(METADATA)
    results, rescored, events, table, package, metadata, detections = (
        str(tmp_path / name)
        for name in ("results", "rescored", "events", "deployments.csv", "package", "project.yaml", "md.json")
    )
    where = ["--deployment-from", "fen/{camera}"]
    assert main(["rescore", results, rescored, "--temperature", "2"]) == 0
    assert main(["events", rescored, events, *where]) == 0
    said = capsys.readouterr().out
    assert "1 with an impossible time (correct the clock with --corrections)\n" in said
    assert "1 with no time\n" in said
    options = ["--metadata", metadata, "--title", "Fens 2024", "--timezone", "Europe/Berlin"]
    assert main(["export-camtrapdp", rescored, events, table, package, *options]) == 0
    assert "warning: deployment spring: its clock shows 2024-03-31 02:59:50" in capsys.readouterr().out
    content = json.loads((tmp_path / "package/datapackage.json").read_text())
    jsonschema.validate(content, descriptor.profile())
    assert content["version"] == "1.0"
    found = [(row["deploymentID"], row["eventStart"], row["eventEnd"]) for row in rows(tmp_path, "observations")
             if row["observationLevel"] == "event"]  # fmt: skip
    assert found == [
        ("spring", "2024-03-31T02:59:50+01:00", "2024-03-31T03:00:10+01:00"),
        ("summer", "2024-08-01T00:00:00+02:00", "2024-08-01T00:00:00+02:00"),
    ]
    assert [row["filePath"] for row in rows(tmp_path, "media")] == [f"file:///in/fen/c1/{n}.jpg" for n in (1, 2, 3)]
    assert sorted(row["reason"] for row in rows(tmp_path, "quarantine")) == ["implausible_time", "no_time"]
    assert main(["export-megadetector", rescored, detections]) == 0
    names = [image["file"] for image in json.loads(Path(detections).read_text())["images"]]
    assert names == [f"fen/c1/{n}.jpg" for n in range(1, 6)]


def test_metadata_that_the_profile_does_not_allow_names_file_and_property(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "project.yaml").write_text(METADATA.replace("targeted", "random"))
    assert main(["export-camtrapdp", "r", "e", "d", "p", "--metadata", f"{tmp_path}/project.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"trapline: {tmp_path}/project.yaml: project.samplingDesign: 'random' is not one of")
    assert said.count("\n") == 1
    assert "--project" not in said
