import unicodedata
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.support.events import PATTERN, at, build, table, write
from trapline.analysis import dataset, deployment_periods, event_dataset
from trapline.analysis.events import build as module
from trapline.analysis.events.build import Account, Options
from trapline.analysis.events.sessions import Gap
from trapline.cli import app
from trapline.errors import OutputConflict, UsageError

HEADER = "deploymentID,locationName,cameraID,latitude,longitude,deploymentStart,deploymentEnd\n"
MOVED = (
    HEADER
    + """spring,a,c1,52.5,13.25,2024-05-01T10:00:00,2024-06-01T12:00:00
summer,a,c1,52.75,13.5,2024-06-02T12:00:00,2024-07-01
other,a,c2,,,2024-05-01,2024-07-01
"""
)


def on(moment: str, key: str = "") -> object:
    when = datetime.fromisoformat(moment)
    return at(0, key=key or f"{moment}.jpg", facts={"captured_at": when})


def placed(folder: Path, text: str, *moments: str, timezone: str | None = None) -> list[tuple[str | None, ...]]:
    """Deployment, or else the reason, of images of the camera a/c1 at these moments."""
    write(f"{folder}/results", "site=a/c1/1.tar", [on(moment) for moment in moments])
    (folder / "deployments.csv").write_text(text)
    periodic(folder, timezone)
    rows = duckdb.sql(f"""
        select image_uri, deployment from '{folder}/events/images/*.parquet'
        union all select image_uri, reason from '{folder}/events/unassigned/*.parquet'""").fetchall()
    found = {uri.partition("#")[2]: where for uri, where in rows}
    return [found[f"{moment}.jpg"] for moment in moments]


def periodic(
    folder: Path, timezone: str | None = None, corrections: str | None = None, replace: bool = False
) -> Account:
    options = Options(Gap(), PATTERN, corrections, f"{folder}/deployments.csv", timezone)
    return module.build(dataset.find(f"{folder}/results"), f"{folder}/events", options, replace)


def test_a_camera_that_was_moved_has_the_deployment_of_its_time_and_between_two_none(tmp_path: Path) -> None:
    moments = ["2024-05-01T09:59:59", "2024-05-01T10:00:00", "2024-06-01T12:00:00", "2024-06-01T12:00:01",
               "2024-06-02T12:00:00", "2024-07-01T23:59:59", "2024-07-02T00:00:00"]  # fmt: skip
    out = "outside_deployment"
    assert placed(tmp_path, MOVED, *moments) == [out, "spring", "spring", out, "summer", "summer", out]
    found = event_dataset.find(f"{tmp_path}/events", dataset.find(f"{tmp_path}/results"))
    kept = pq.read_table(list(found.deployments)).to_pylist()
    assert kept[0] == {"deployment": "spring", "location": "a", "camera": "c1", "latitude": 52.5, "longitude": 13.25,
                       "started_at": datetime(2024, 5, 1, 10), "ended_at": datetime(2024, 6, 1, 12)}  # fmt: skip
    assert kept[1]["ended_at"] == datetime(2024, 7, 1, 23, 59, 59, 999000)


@pytest.mark.parametrize("name", ["spring,,", ",c1,", ",,fen", "a/c1,,"])
def test_a_row_is_named_in_any_of_its_columns(name: str, tmp_path: Path) -> None:
    pattern = {"spring,,": "spring", ",c1,": "c1", ",,fen": "fen", "a/c1,,": "a/c1"}[name]
    write(f"{tmp_path}/results", f"at={pattern}/1.tar", [on("2024-05-01T10:00:00")])
    own, camera, location = name.split(",")
    rows = f"deploymentID,cameraID,locationID,deploymentStart\n{own or 'd'},{camera},{location},2024-05-01\n"
    (tmp_path / "deployments.csv").write_text(rows)
    source = "at={site}/{camera}/…" if "/" in pattern else "at={deployment}/…"
    options = Options(Gap(), [source], None, f"{tmp_path}/deployments.csv")
    assert module.build(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/events", options).images == 1


def test_a_row_with_a_start_only_goes_on_to_the_next(tmp_path: Path) -> None:
    text = HEADER + "one,a,c1,,,2024-05-01,\ntwo,a,c1,,,2024-06-01T12:00,NA\n"
    moments = ["2024-04-30T23:59:59", "2024-06-01T11:59:59", "2024-06-01T12:00:00", "2025-01-01T00:00:00"]
    assert placed(tmp_path, text, *moments) == ["outside_deployment", "one", "two", "two"]


@pytest.mark.parametrize(
    ("zone", "column", "start", "first"),
    [
        ("Pacific/Tongatapu", "", "2024-05-01T00:00:00Z", "2024-05-01T13:00:00"),
        ("", "+13:00", "2024-05-01T00:00:00Z", "2024-05-01T13:00:00"),
        ("Australia/Lord_Howe", "", "2024-04-06T15:00:00Z", "2024-04-07T01:30:00"),
        ("Australia/Lord_Howe", "", "2024-04-06T14:00:00Z", "2024-04-07T01:00:00"),
        ("America/Santiago", "", "2024-04-07T04:30:00Z", "2024-04-07T00:30:00"),
        ("", "", "2024-05-01T10:00:00+13:00", "2024-05-01T10:00:00"),
        ("Europe/Berlin", "", "2024-05-01T10:00:00", "2024-05-01T10:00:00"),
    ],
)
def test_a_time_is_that_of_the_cameras_clock(zone: str, column: str, start: str, first: str, tmp_path: Path) -> None:
    text = f"deploymentID,cameraID,deploymentStart,timezone\nd,a/c1,{start},{column}\n"
    before = (datetime.fromisoformat(first) - timedelta(seconds=1)).isoformat()
    assert placed(tmp_path, text, before, first, timezone=zone or None) == ["outside_deployment", "d"]


def test_what_is_in_no_period_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [on("2024-05-01T12:00:00"), on("2024-06-01T15:00:00"), at(None)])
    write(f"{tmp_path}/results", "site=b/c1/1.tar", [on("2024-05-01T12:00:00"), on("2000-01-01T00:00:00", "r.jpg")])
    (tmp_path / "deployments.csv").write_text(MOVED.replace(",c1,", ",a/c1,"))
    where = ["--deployment-from", PATTERN[0], "--deployments", f"{tmp_path}/deployments.csv"]
    assert app.main(["events", f"{tmp_path}/results", f"{tmp_path}/events", *where]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "deployments  1 (0 unchanged, 0 removed)",
        "events       1 of 1 images",
        "in no event  4 images",
        "             1 with a place or camera that DEPLOYMENTS does not name",
        "             1 with an impossible time (correct the clock with --corrections) and a place or camera that "
        "DEPLOYMENTS does not name",
        "             1 with no time",
        "             1 with a time outside of their deployment (correct DEPLOYMENTS, or the clock with --corrections)",
    ]


@pytest.mark.parametrize("end", ["2024-05-01T12", "20240501T120000", "2024-05-01 12:00"])
def test_an_end_with_an_hour_is_no_whole_day(end: str, tmp_path: Path) -> None:
    text = f"{HEADER}one,a,c1,,,2024-04-01,{end}\n"
    assert placed(tmp_path, text, "2024-05-01T12:00:00", "2024-05-01T12:00:01") == ["one", "outside_deployment"]


def test_a_camera_may_stand_for_a_part_of_one_day(tmp_path: Path) -> None:
    text = f"{HEADER}one,a,c1,,,2024-05-01T12:00,2024-05-01\n"
    times = ("2024-05-01T11:59:59", "2024-05-01T23:59:59")
    assert placed(tmp_path, text, *times) == ["outside_deployment", "one"]


def test_times_of_a_zone_are_other_than_those_of_the_results(tmp_path: Path) -> None:
    placed(tmp_path, MOVED, "2024-05-05T10:00:00", timezone="Pacific/Auckland")
    assert event_dataset.find(f"{tmp_path}/events", dataset.find(f"{tmp_path}/results")).corrects_clocks


def test_a_corrected_time_decides(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [on("2024-01-01T10:00:00")])
    (tmp_path / "deployments.csv").write_text(MOVED)
    (tmp_path / "clocks.csv").write_text("deployment,offset\na/c1,160d 00:00:00\n")
    assert periodic(tmp_path, corrections=f"{tmp_path}/clocks.csv").images == 1
    assert table(str(tmp_path), select="deployment, clock_corrected") == [("summer", True)]


def test_other_periods_are_other_events(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [on("2024-05-05T10:00:00")])
    (tmp_path / "deployments.csv").write_text(MOVED)
    assert periodic(tmp_path).unchanged == 0
    assert periodic(tmp_path).unchanged == 1
    (tmp_path / "deployments.csv").write_text(MOVED.replace("52.5,", "52.25,"))
    with pytest.raises(OutputConflict, match="deployments_sha256"):
        periodic(tmp_path)
    assert periodic(tmp_path, replace=True).unchanged == 0
    assert pq.read_table(tmp_path / "events/deployments").column("latitude")[0].as_py() == 52.25
    build(str(tmp_path), replace=True)
    assert not (tmp_path / "events/deployments").exists() or not list((tmp_path / "events/deployments").iterdir())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("one,a,c1,,,2024-05-01,2024-06-02\ntwo,a,c1,,,2024-06-01,", "deployments one and two are both of a/c1 and overlap"),
        ("one,a,c1,,,2024-05-01,\ntwo,a,c1,,,2024-05-01,", "deployments one and two are both of a/c1 and overlap"),
        ("one,a,c1,,,,2024-05-01\ntwo,a,c1,,,,2024-06-01", "deployments one and two are both of a/c1 and overlap"),
        ("one,a,c1,,,2024-05-01,\none,a,c1,,,2024-06-01,", "deploymentID one stands there 2 times; give each period"),
        ("one,a,c1,,,2024-06-01,2024-05-01", "line 2: deploymentEnd 2024-05-01 lies before deploymentStart 2024-06-01"),
        ("one,a,c1,,,May,", "line 2: deploymentStart 'May' is no time; write 2024-05-01"),
        ("one,a,c1,,,2024-05-01T00:00:00Z,", "is in UTC; give --timezone"),
        ("one,a,c1,,,2024-05-01T00:00:00+00:00,", "is in UTC; give --timezone"),
        ("one,a,c1,91,,2024-05-01,", "latitude 91 is beyond 90 degrees"),
        ("one,a,c1,,nought,2024-05-01,", "longitude nought is no number"),
        ("one,a,c1,5_2,,2024-05-01,", "latitude 5_2 is no number; write degrees"),
        ("one,a,c1,５,,2024-05-01,", "latitude ５ is no number"),
        ('one,a,c1,"52,5",,2024-05-01,', "latitude 52,5 is no number"),
        ("one,b,c3,,,2024-05-01,", "no deploymentID, cameraID, locationID or locationName is a deployment"),
        (",a,c1,,,2024-05-01,", "has no deploymentID"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_is_refused(rows: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"deployments\.csv: ") as refused:
        placed(tmp_path, HEADER + rows + "\n", "2024-05-05T10:00:00")
    assert words in str(refused.value)


def test_a_name_that_no_image_has_may_overlap() -> None:
    row = {"cameraID": "c1", "locationID": None, "starts": 1, "ends": 9}
    rows = [{**row, "deploymentID": name, "locationName": name} for name in ("one", "two")]
    assert [each["name"] for each in deployment_periods.by_name(rows, {"one/c1"}, "d.csv")] == ["one", "one/c1", "two"]
    with pytest.raises(UsageError, match="are both of c1"):
        deployment_periods.by_name(rows, {"c1"}, "d.csv")


@pytest.mark.parametrize("column", ["deploymentID", "locationName", "cameraID"])
def test_a_name_in_another_unicode_form_is_that_of_the_folder(column: str, tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Müritz") for form in ("NFC", "NFD"))
    write(f"{tmp_path}/results", f"site={two}/c1/1.tar", [on("2024-05-01T12:00:00")])
    write(f"{tmp_path}/results", f"site={one}/c2/1.tar", [on("2024-05-01T12:00:00")])
    cells = {"deploymentID": "d1"} | {column: f"{one}/c1"}
    (tmp_path / "deployments.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    account = periodic(tmp_path)
    assert account.unassigned == {"deployment_not_in_table": 1}
    assert table(str(tmp_path), select="deployment, camera") == [(cells["deploymentID"], "c1")]
