import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import frictionless
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support import camtrapdp_package as packages
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.camtrapdp import deployment_table, descriptor, validation
from trapline.analysis.camtrapdp import export as module
from trapline.analysis.camtrapdp.export import Account, Export
from trapline.analysis.events import build
from trapline.analysis.events.build import Options
from trapline.analysis.events.sessions import Gap
from trapline.analysis.rescoring import rescore
from trapline.analysis.rescoring.scorer import Scorer
from trapline.cli import app
from trapline.cli import export_camtrapdp as job
from trapline.decoding.crops import Box
from trapline.errors import OutputConflict, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

CLASSES = ["Anas strepera", "Ardea", "person"]
COLUMNS = columns(CLASSES, 2)
MARK = Fingerprint({"weights_sha256": "cd" * 32, "architecture": {"variant": "hiera_tiny"}, "top_k": 2})
SUMMER = datetime(2024, 6, 1, 23, 59, 50)
WINTER = datetime(2024, 12, 1, 12)

DEPLOYMENTS = """deploymentID,longitude,latitude,deploymentStart,deploymentEnd,featureType,notes
d1,4.774,51.496,2024-05-01T10:00:00+02:00,2024-07-01T10:00:00Z,culvert,mine
d2,5.5,-3.25,2024-11-01 00:00:00,2025-02-01T00:00:00,,
"""
DESCRIPTION = {
    "contributors": [{"title": "Ada", "role": "contact"}],
    "licenses": [{"name": "CC0-1.0", "scope": "data"}, {"name": "CC-BY-4.0", "scope": "media"}],
    "project": {
        "title": "Fens",
        "samplingDesign": "targeted",
        "captureMethod": ["activityDetection"],
        "individualAnimals": False,
    },
}


def at(
    moment: datetime | None, probabilities: Sequence[float] = (0.75, 0.25, 0), key: str = "", **values: Any
) -> Planted:
    facts = {"format": "jpeg"} | ({} if moment is None else {"captured_at": moment})
    if values.get("status") != "failed":
        values |= {"logits": np.log(np.maximum(probabilities, 1e-30)), "embedding": (0, 0)}
    return Planted(key or f"DCIM/{moment}.jpg", facts=facts, **values)


def plant(place: str) -> None:
    """Two deployments, and one more that is in no table; an image without time."""
    later = [SUMMER + timedelta(seconds=seconds) for seconds in range(60)]
    images = [
        at(later[0]),
        at(later[20], (0.25, 0.75, 0)),
        at(later[30], (0.05, 0.95, 0), key="DCIM/a..b.jpg"),
        at(None, key="undated.jpg"),
    ]
    for name, content in {
        "d1/1.tar": images,
        "d2/1.tar": [
            at(WINTER, (0.375, 0.375, 0.25)),
            at(WINTER + timedelta(hours=1), status="failed", error="empty: x"),
        ],
        "d9/1.tar": [at(WINTER)],
    }.items():
        write_result(f"{place}/results", f"s3://in/at={name}", f"at={name}", content, COLUMNS, MARK)
    prepare(place)


def prepare(place: str, replace: bool = False) -> None:
    """Make events of the results, and write what a person keeps."""
    options = Options(Gap(), ["at={deployment}"])
    build.build(dataset.find(f"{place}/results"), f"{place}/events", options, replace)
    store.put(f"{place}/deployments.csv", DEPLOYMENTS.encode())
    store.put(f"{place}/metadata.json", json.dumps(DESCRIPTION).encode())


def export(place: str, replace: bool = False, description: Any = DESCRIPTION, **values: Any) -> Account:
    return module.export(
        dataset.find(f"{place}/results"),
        f"{place}/events",
        f"{place}/deployments.csv",
        f"{place}/package",
        descriptor.parse(description, f"{place}/metadata.json"),
        "Fens 2024",
        Export(**{"timezone": "Europe/Berlin"} | values),
        replace,
    )


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_package_is_valid_and_says_what_was_seen(kind: str, tmp_path: Path, bucket: str) -> None:
    place = bucket if kind == "s3" else str(tmp_path / "place")
    plant(place)
    account = export(place)
    assert account == Account(
        {"deployments": 2, "media": 5, "observations": 8}, {"deployment_not_in_table": 1, "no_time": 1}
    )
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{place}/package", tmp_path / "check") == []

    media = packages.rows(f"{place}/package", "media")
    names = ["deploymentID", "timestamp", "fileName", "filePath", "fileMediatype", "captureMethod", "mediaComments"]
    assert [[row[name] for name in names] for row in media] == [
        ["d1", "2024-06-01T23:59:50+02:00", "2024-06-01 23:59:50.jpg",
         "s3://in/at=d1/1.tar#DCIM/2024-06-01 23:59:50.jpg", "image/jpeg", "activityDetection", ""],
        ["d1", "2024-06-02T00:00:10+02:00", "2024-06-02 00:00:10.jpg",
         "s3://in/at=d1/1.tar#DCIM/2024-06-02 00:00:10.jpg", "image/jpeg", "activityDetection", ""],
        ["d1", "2024-06-02T00:00:20+02:00", "a..b.jpg",
         "s3://in/at=d1/1.tar#DCIM/a%2E%2Eb.jpg", "image/jpeg", "activityDetection", ""],
        ["d2", "2024-12-01T12:00:00+01:00", "2024-12-01 12:00:00.jpg",
         "s3://in/at=d2/1.tar#DCIM/2024-12-01 12:00:00.jpg", "image/jpeg", "activityDetection", ""],
        ["d2", "2024-12-01T13:00:00+01:00", "2024-12-01 13:00:00.jpg",
         "s3://in/at=d2/1.tar#DCIM/2024-12-01 13:00:00.jpg", "image/jpeg", "activityDetection", "empty: x"],
    ]  # fmt: skip

    observations = packages.rows(f"{place}/package", "observations")
    names = ["deploymentID", "observationLevel", "observationType", "scientificName", "observationTags"]
    seen = [[*(row[name] for name in names), row["classificationProbability"][:5]] for row in observations]
    assert sorted(seen) == [
        ["d1", "event", "animal", "Ardea", "", "0.65"],
        ["d1", "media", "animal", "Anas strepera", "", "0.75"],
        ["d1", "media", "animal", "Ardea", "", "0.75"],
        ["d1", "media", "animal", "Ardea", "", "0.95"],
        ["d2", "event", "unclassified", "", "", ""],
        ["d2", "event", "unknown", "", "mostProbable:Anas strepera | probability:0.375", ""],
        ["d2", "media", "unclassified", "", "", ""],
        ["d2", "media", "unknown", "", "mostProbable:Anas strepera | probability:0.375", ""],
    ]
    by = {(row["classificationMethod"], row["classifiedBy"]) for row in observations}
    assert by == {("machine", f"hiera_tiny (weights sha256:{'cd' * 32})"), ("", "")}
    for row in observations:
        told = row["classificationTimestamp"]
        assert bool(told) == (row["observationType"] != "unclassified")
        assert not told or abs(datetime.fromisoformat(told).timestamp() - datetime.now().timestamp()) < 600
    (event,) = [row for row in observations if row["scientificName"] == "Ardea" and row["observationLevel"] == "event"]
    assert (event["eventStart"], event["eventEnd"]) == ("2024-06-01T23:59:50+02:00", "2024-06-02T00:00:20+02:00")
    of_event = {row["mediaID"] for row in observations if row["eventID"] == event["eventID"]} - {""}
    assert of_event == {row["mediaID"] for row in media if row["deploymentID"] == "d1"}

    quarantine = {
        row["image_uri"].rpartition("#")[2]: row["reason"] for row in packages.rows(f"{place}/package", "quarantine")
    }
    assert quarantine == {"undated.jpg": "no_time", "DCIM/2024-12-01 12:00:00.jpg": "deployment_not_in_table"}


def test_the_descriptor_has_what_the_profile_requires(tmp_path: Path) -> None:
    plant(str(tmp_path))
    export(str(tmp_path))
    plain = json.loads((tmp_path / "package/datapackage.json").read_text())
    assert plain["project"]["observationLevel"] == ["media", "event"]
    assert plain["temporal"] == {"start": "2024-05-01", "end": "2025-02-01"}
    assert plain["spatial"]["coordinates"][0][0] == [4.774, -3.25]
    assert plain["taxonomic"] == [{"scientificName": "Anas strepera"}, {"scientificName": "Ardea"}]
    assert (plain["name"], plain["title"]) == ("fens-2024", "Fens 2024")
    assert (plain["contributors"], plain["licenses"]) == (DESCRIPTION["contributors"], DESCRIPTION["licenses"])


def test_times_in_the_table_without_a_zone_are_in_that_of_the_deployment(tmp_path: Path) -> None:
    plant(str(tmp_path))
    table = DEPLOYMENTS.replace("notes", "timezone").replace("mine", "Asia/Tokyo")
    (tmp_path / "deployments.csv").write_text(table)
    export(str(tmp_path), timezone="-03:30")
    starts = {
        row["deploymentID"]: row["deploymentStart"] for row in packages.rows(f"{tmp_path}/package", "deployments")
    }
    assert starts == {"d1": "2024-05-01T10:00:00+02:00", "d2": "2024-11-01T00:00:00-03:30"}
    times = {
        row["timestamp"][19:] for row in packages.rows(f"{tmp_path}/package", "media") if row["deploymentID"] == "d1"
    }
    assert times == {"+09:00"}
    assert {row["timestamp"][19:] for row in packages.rows(f"{tmp_path}/package", "media")} == {"+09:00", "-03:30"}


def test_a_table_of_taxa_names_the_classes(tmp_path: Path) -> None:
    plant(str(tmp_path))
    taxa = "class,scientificName,observationType,taxonID\nperson,Homo sapiens,human,6MB3T\nArdea,Ardea,,32FH\nAnas strepera,Mareca strepera,,\n"
    (tmp_path / "taxa.csv").write_text(taxa)
    export(str(tmp_path), taxa=f"{tmp_path}/taxa.csv", threshold=0.25, model_name="Fens 3")
    observations = packages.rows(f"{tmp_path}/package", "observations")
    assert {row["scientificName"] for row in observations} == {"", "Ardea", "Mareca strepera"}
    assert {row["classifiedBy"].partition(" (")[0] for row in observations} == {"", "Fens 3"}
    plain = json.loads((tmp_path / "package/datapackage.json").read_text())
    assert plain["taxonomic"][0] == {"scientificName": "Ardea", "taxonID": "32FH"}
    for broken, words in {
        "class\nArdea\n": "has no column 'scientificName'",
        taxa.replace("Ardea,Ardea", "Heron,Ardea"): "lacks the class Ardea",
        taxa + "Ardea,Ardea,,\n": "names twice the class Ardea",
        taxa.replace("human", "bird"): "observationType is none of animal, human, vehicle, blank, of the class person",
    }.items():
        (tmp_path / "taxa.csv").write_text(broken)
        with pytest.raises(UsageError, match=words):
            export(str(tmp_path), taxa=f"{tmp_path}/taxa.csv", replace=True)


def test_each_box_is_an_observation_and_people_and_vehicles_have_no_species(tmp_path: Path) -> None:
    uri = "s3://in/at=d1/1.tar"
    fox = {"logits": np.log((0.75, 0.25, 1e-9)), "embedding": (0, 0)}
    facts = {"captured_at": SUMMER, "format": "jpeg"}
    images = [
        Planted("two.jpg", facts=facts, crop=None),
        Planted("two.jpg", facts=facts, crop=1, box=Box("animal", 0.9, (0.1, 0.2, 0.3, 0.4)), **fox),
        Planted("two.jpg", facts=facts, crop=2, box=Box("person", 0.8, (0.0, 0.0, 0.5, 1.0)), **fox),
        Planted("three.jpg", facts=facts, crop=None),
        Planted("three.jpg", facts=facts, crop=1, box=Box("vehicle", 0.4, (0.9, 0.9, 0.1, 1e-9)), **fox),
        Planted("whole.jpg", facts=facts, **fox),
        Planted("empty.jpg", facts=facts),
    ]
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
    write_result(f"{tmp_path}/results", uri, "at=d1/1.tar", images, columns(CLASSES, 2, crops=True), mark)
    prepare(str(tmp_path))
    account = export(str(tmp_path))
    assert account.rows == {"deployments": 2, "media": 4, "observations": 6}
    seen = [
        [row["observationType"], row["scientificName"], row["classificationProbability"][:4], *(row[f"bbox{side}"] for side in ("X", "Y", "Width", "Height"))]
        for row in packages.rows(f"{tmp_path}/package", "observations") if row["observationLevel"] == "media"
    ]  # fmt: skip
    assert sorted(seen) == [
        ["animal", "Anas strepera", "0.75", "", "", "", ""],
        ["animal", "Anas strepera", "0.75", "0.1", "0.2", "0.3", "0.4"],
        ["human", "Homo sapiens", "0.8", "0.0", "0.0", "0.5", "1.0"],
        ["unclassified", "", "", "", "", "", ""],
        ["vehicle", "", "0.4", "0.9", "0.9", "0.1", "1e-07"],
    ]
    by = {row["observationType"]: row["classifiedBy"] for row in packages.rows(f"{tmp_path}/package", "observations")}
    assert by["vehicle"] == "detector (detections sha256:ab)"
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []


def test_rescored_results_are_results(tmp_path: Path) -> None:
    plant(str(tmp_path))
    before = dataset.find(f"{tmp_path}/results")
    export(str(tmp_path))
    (tmp_path / "results").rename(tmp_path / "first")
    source = dataset.find(f"{tmp_path}/first")
    scorer = Scorer(tuple(CLASSES), 2, temperature=2.0)
    mark = rescore.fingerprint(source, scorer, None, None)
    plan = rescore.plan(source, f"{tmp_path}/results", mark, overwrite=False)
    assert [outcome.trouble for outcome in rescore.run(plan.todo, scorer, mark)] == [None] * len(before.files)
    prepare(str(tmp_path), replace=True)
    paths = [row["filePath"] for row in packages.rows(f"{tmp_path}/package", "media")]
    account = export(str(tmp_path), replace=True)
    assert account.rows == {"deployments": 2, "media": 5, "observations": 8}
    assert [row["filePath"] for row in packages.rows(f"{tmp_path}/package", "media")] == paths
    assert {row["fileMediatype"] for row in packages.rows(f"{tmp_path}/package", "media")} == {"image/jpeg"}
    by = {row["classifiedBy"] for row in packages.rows(f"{tmp_path}/package", "observations")}
    assert by == {f"hiera_tiny (weights sha256:{'cd' * 32})", ""}
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []


def test_a_clip_is_one_medium_that_lasts_and_a_failed_one_has_the_type_of_its_name(tmp_path: Path) -> None:
    kinds = {"mp4": "mp4", "mov": "quicktime", "avi": "x-msvideo", "mkv": "x-matroska", "mts": "mp2t", "3gp": "3gpp",
             "asf": "x-ms-asf", "mpg": "mpeg", "webm": "webm"}  # fmt: skip
    clips = []
    for number, kind in enumerate(kinds):
        facts = {"media_type": "video", "format": kind, "duration_seconds": 10.5, "frame_rate": 25.0,
                 "captured_at": SUMMER + timedelta(hours=number)}  # fmt: skip
        whole = Planted(f"{kind}.{kind}", np.log((0.75, 0.2, 0.05)), (0, 0), facts=facts)
        first, second = (replace(whole, facts={**facts, "frame_seconds": seconds}) for seconds in (0.0, 1.0))
        # With crops of a frame, too, the clip is one observation, of the mean.
        clips += [whole, replace(first, logits=()), replace(first, crop=1), replace(first, crop=2), second]
    facts = {"media_type": None, "captured_at": SUMMER + timedelta(days=1)}
    clips.append(Planted("bad.MOV", status="failed", error="no_frames: x", facts=facts))
    crops = replace(COLUMNS, crops=True)
    write_result(f"{tmp_path}/results", "s3://in/at=d1/1.tar", "at=d1/1.tar", clips, crops, MARK)
    prepare(str(tmp_path))
    account = export(str(tmp_path))
    assert account.rows == {"deployments": 2, "media": 10, "observations": 20}
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []
    media = {row["fileName"]: row["fileMediatype"] for row in packages.rows(f"{tmp_path}/package", "media")}
    assert media == {f"{kind}.{kind}": f"video/{kinds[kind]}" for kind in kinds} | {"bad.MOV": "video/quicktime"}
    lasts = {
        (datetime.fromisoformat(row["eventEnd"]) - datetime.fromisoformat(row["eventStart"])).total_seconds()
        for row in packages.rows(f"{tmp_path}/package", "observations")
        if row["classificationMethod"]
    }
    assert lasts <= {10, 11}


@pytest.mark.parametrize("root", ["s3://in", "/mnt/in"])
def test_a_loose_photograph_has_its_own_path_and_published_media_have_a_url(root: str, tmp_path: Path) -> None:
    loose = [at(SUMMER, key=name) for name in ("IMG #1.JPG", "a..b.jpg", "nl\n.jpg")]
    write_result(f"{tmp_path}/results", f"{root}/at=d1", "at=d1/images", loose, COLUMNS, MARK, loose=True)
    packed = [at(WINTER, key="DCIM/1.jpg")]
    write_result(f"{tmp_path}/results", f"{root}/at=d2/1.tar", "at=d2/1.tar", packed, COLUMNS, MARK)
    prepare(str(tmp_path))
    export(str(tmp_path))
    base = root if "://" in root else f"file://{root}"
    assert [row["filePath"] for row in packages.rows(f"{tmp_path}/package", "media")] == [
        f"{base}/at=d1/IMG #1.JPG", f"{base}/at=d1/a%2E%2Eb.jpg", f"{base}/at=d1/nl%0A.jpg", f"{base}/at=d2/1.tar#DCIM/1.jpg",
    ]  # fmt: skip
    assert {row["filePublic"] for row in packages.rows(f"{tmp_path}/package", "media")} == {"false"}
    export(str(tmp_path), replace=True, media_url="https://fens.org/media/")
    assert [(row["filePath"], row["filePublic"]) for row in packages.rows(f"{tmp_path}/package", "media")] == [
        ("https://fens.org/media/at%3Dd1/IMG%20%231.JPG", "true"),
        ("https://fens.org/media/at%3Dd1/a%2E%2Eb.jpg", "true"),
        ("https://fens.org/media/at%3Dd1/nl%0A.jpg", "true"),
        ("https://fens.org/media/at%3Dd2/1.tar/DCIM/1.jpg", "true"),
    ]
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []


def test_what_the_standard_does_not_allow_is_refused_before_anything_is_written_or_removed(tmp_path: Path) -> None:
    plant(str(tmp_path))
    export(str(tmp_path))
    before = {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()}
    licenses = {"licenses": [{"name": "CC0-1.0", "scope": "data"}]}
    with pytest.raises(UsageError, match=r"metadata\.json: licenses: needs at least 2 entries"):
        export(str(tmp_path), replace=True, description=DESCRIPTION | licenses)
    # A species that bears the name of a missing value: no reader would find it.
    write_result(f"{tmp_path}/results", "s3://in/at=NA/1.tar", "at=NA/1.tar", [at(SUMMER)], COLUMNS, MARK)
    prepare(str(tmp_path), replace=True)
    (tmp_path / "deployments.csv").write_text(DEPLOYMENTS.replace("d2,", "NA,"))
    with pytest.raises(UsageError, match=r"deployments\.csv: deployment None: deploymentID is empty"):
        export(str(tmp_path), replace=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()} == before


def test_images_outside_of_their_deployment_are_in_the_quarantine_and_skipped_times_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = datetime(2025, 3, 30, 2, 59, 50)
    moments = [WINTER, change, change + timedelta(seconds=20), datetime(2012, 1, 1)]
    write_result(
        f"{tmp_path}/results", "s3://in/at=d2/1.tar", "at=d2/1.tar", [at(each) for each in moments], COLUMNS, MARK
    )
    prepare(str(tmp_path))
    (tmp_path / "deployments.csv").write_text(DEPLOYMENTS.replace("2025-02-01T", "2025-06-01T"))
    arguments = [*(f"{tmp_path}/{name}" for name in ("results", "events", "deployments.csv", "package"))]
    options = ["--metadata", f"{tmp_path}/metadata.json", "--title", "F", "--timezone", "Europe/Berlin"]
    assert job.main([*arguments, *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "quarantine 1: 1 outside_deployment" in said
    assert "warning: deployment d2: its clock shows 2025-03-30 02:59:50, a time that Europe/Berlin skips" in said
    ends = [
        (row["eventStart"], row["eventEnd"])
        for row in packages.rows(f"{tmp_path}/package", "observations")
        if row["observationLevel"] == "event"
    ]
    assert ends[1] == ("2025-03-30T02:59:50+01:00", "2025-03-30T03:00:10+01:00")
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []


def test_events_that_all_lie_outside_of_their_deployments_are_refused(tmp_path: Path) -> None:
    write_result(f"{tmp_path}/results", "s3://in/at=d1/1.tar", "at=d1/1.tar", [at(datetime(2012, 1, 1))], COLUMNS, MARK)
    prepare(str(tmp_path))
    with pytest.raises(UsageError, match=r"no event lies between .* such as one of d1 at 2012-01-01 00:00; correct"):
        export(str(tmp_path))


def test_parquet_holds_the_same_rows_in_types(tmp_path: Path) -> None:
    plant(str(tmp_path))
    export(str(tmp_path), parquet=True)
    for table in ("deployments", "media", "observations"):
        found = pq.read_table(tmp_path / f"package/{table}.parquet")
        assert found.column_names == [field["name"] for field in validation.schema(table)["fields"]]
        key = found.column_names[0]
        assert found.column(key).to_pylist() == [row[key] for row in packages.rows(f"{tmp_path}/package", table)]
    types = dict(
        duckdb.sql(f"describe from '{tmp_path}/package/media.parquet'").project("column_name, column_type").fetchall()
    )
    assert (types["timestamp"], types["filePublic"]) == ("TIMESTAMP WITH TIME ZONE", "BOOLEAN")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("d2,", "d1,", "deploymentID d1 stands there 2 times"),
        ("51.496", "", "deployment d1: latitude is empty"),
        ("51.496", "north", "deployment d1: latitude north is no number"),
        ("-3.25", "-93.25", "deployment d2: latitude -93.25 is below -90"),
        ("culvert", "bridge", "deployment d1: featureType bridge is none of roadPaved"),
        ("2025-02-01T00:00:00", "February", "deployment d2: deploymentEnd February is no"),
        ("longitude", "lon", "has no column 'longitude'"),
        ("notes", "cameraTilt", "deployment d1: cameraTilt mine is no integer"),
        ("notes", "baitUse", "deployment d1: baitUse mine is no boolean"),
        ("notes", "timezone", "mine: no time zone"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_of_the_standard_is_refused_with_the_cell(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "deployments.csv"
    path.write_text(DEPLOYMENTS.replace(old, new, 1))
    with pytest.raises(UsageError, match=rf"^{path}: {words}[^\n]*$"):
        deployment_table.load(duckdb.connect(), str(path), "Europe/Berlin")


def test_a_zone_is_asked_for_and_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "deployments.csv"
    path.write_text(DEPLOYMENTS)
    with pytest.raises(UsageError, match="no time zone for the camera of deployment d1; give --timezone"):
        deployment_table.load(duckdb.connect(), str(path), None)
    for wrong in ("Berlin", "CEST+99", "2"):
        with pytest.raises(UsageError, match="no time zone; give a name"):
            deployment_table.load(duckdb.connect(), str(path), wrong)


def test_events_must_be_of_the_results_as_they_are(tmp_path: Path) -> None:
    plant(str(tmp_path))
    write_result(f"{tmp_path}/results", "s3://in/at=d1/2.tar", "at=d1/2.tar", [at(WINTER)], COLUMNS, MARK)
    with pytest.raises(UsageError, match="as it is now; run `trapline events` again"):
        export(str(tmp_path))
    assert not (tmp_path / "package").exists()


def test_a_table_of_other_deployments_is_refused_with_both_names(tmp_path: Path) -> None:
    plant(str(tmp_path))
    (tmp_path / "deployments.csv").write_text(DEPLOYMENTS.replace("d1", "x1").replace("d2", "x2"))
    with pytest.raises(
        UsageError, match=r"no deploymentID is a deployment of .*; there they have names such as d1, here such as x1"
    ):
        export(str(tmp_path))


def test_a_package_is_overwritten_on_request_only(tmp_path: Path) -> None:
    plant(str(tmp_path))
    export(str(tmp_path))
    before = (tmp_path / "package/datapackage.json").read_bytes()
    with pytest.raises(OutputConflict, match="holds a package"):
        export(str(tmp_path))
    assert (tmp_path / "package/datapackage.json").read_bytes() == before
    export(str(tmp_path), replace=True)
    assert (tmp_path / "package/datapackage.json").read_bytes() != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contributors: []", "contributors"),
        ("{", "neither YAML nor JSON"),
        ("contributors: [{title: Ada}]", "project: is missing"),
        (json.dumps(DESCRIPTION).replace("targeted", "random"), r"project\.samplingDesign"),
    ],
)
def test_metadata_that_lacks_what_the_profile_requires_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(UsageError, match=rf"m\.yaml: {words}"):
        descriptor.read(f"{tmp_path}/m.yaml")


def test_the_job_exports_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    plant(str(tmp_path))
    names = ("results", "events", "deployments.csv", "package")
    arguments = [*(f"{tmp_path}/{name}" for name in names), "--metadata", f"{tmp_path}/metadata.json"]
    assert job.main(arguments) == 2
    assert "give --title" in capsys.readouterr().err
    assert job.main([*arguments, "--title", "Fens"]) == 2
    assert "give --timezone" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["trapline", "export-camtrapdp", *arguments, "--title", "F", "--timezone", "UTC"])
    assert app.main() == 0
    assert " ".join(capsys.readouterr().out.split()) == (
        "deployments 2 media 5 observations 8 quarantine 2: 1 deployment_not_in_table, 1 no_time"
    )


def test_the_standards_own_example_goes_through_and_comes_back(photographs: Path, tmp_path: Path) -> None:
    example = photographs / "camtrap-dp"
    with (example / "media.csv").open(newline="") as file:
        media = list(csv.DictReader(file))
    for deployment in {row["deploymentID"] for row in media}:
        images = [
            at(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=None), key=f"{row['mediaID']}/{row['fileName']}")
            for row in media if row["deploymentID"] == deployment
        ]  # fmt: skip
        write_result(
            f"{tmp_path}/results", f"s3://in/at={deployment}/1.tar", f"{deployment}.tar", images, COLUMNS, MARK
        )
    build.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/events", Options(Gap(120), ["at={deployment}"]))
    # A clock that was not set forward in spring: offsets by deployment, as the media have them.
    zones = {row["deploymentID"]: row["timestamp"][19:] for row in media}
    first, *lines = (example / "deployments.csv").read_text().splitlines()
    table = [f"{first},timezone", *(f"{line},{zones[line.partition(',')[0]]}" for line in lines)]
    (tmp_path / "deployments.csv").write_text("\n".join(table))
    metadata = json.loads((example / "datapackage.json").read_text())
    export(str(tmp_path), description=metadata, timezone=None)

    with (example / "deployments.csv").open(newline="") as file:
        assert packages.rows(f"{tmp_path}/package", "deployments") == sorted(
            csv.DictReader(file), key=lambda row: row["deploymentID"]
        )
    facts = ("deploymentID", "timestamp", "fileName", "fileMediatype")
    back = [
        (row["filePath"].split("/")[-2].partition("#")[2], *(row[name] for name in facts))
        for row in packages.rows(f"{tmp_path}/package", "media")
    ]
    assert sorted(back) == sorted((row["mediaID"], *(row[name] for name in facts)) for row in media)
    (tmp_path / "check").mkdir()
    assert packages.problems(f"{tmp_path}/package", tmp_path / "check") == []


@pytest.mark.parametrize("table", ["deployments", "media", "observations"])
def test_the_schemas_are_those_by_which_the_standards_own_example_is_valid(table: str, photographs: Path) -> None:
    path = photographs / "camtrap-dp" / f"{table}.csv"
    schema = validation.schema(table)
    assert path.open().readline().strip().split(",") == [field["name"] for field in schema["fields"]]
    schema.pop("foreignKeys", None)
    resource = frictionless.Resource(
        path=path.name, basepath=str(path.parent), schema=frictionless.Schema.from_descriptor(schema)
    )
    found = resource.validate().flatten(["type", "fieldName"])
    assert found == []
