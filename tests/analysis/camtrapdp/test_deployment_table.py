from pathlib import Path

import duckdb
import pytest

from trapline.analysis.camtrapdp import deployment_table
from trapline.errors import UsageError

HEADER = "deploymentID,latitude,longitude,deploymentStart,deploymentEnd"
LINE = "fen,52.1,13.2,2024-03-30T12:00:00,2024-04-02T12:00:00"


def load(
    folder: Path, *lines: str, header: str = HEADER, timezone: str | None = "Europe/Berlin"
) -> duckdb.DuckDBPyConnection:
    path = folder / "it's deployments.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    connection = duckdb.connect()
    deployment_table.load(connection, str(path), timezone)
    return connection


def moments(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return connection.sql("select deploymentStart, deploymentEnd from deployments order by deploymentID").fetchall()


def test_a_moment_has_the_offset_that_held_in_its_zone_then(tmp_path: Path) -> None:
    """Clocks in Berlin went forward on 31 March 2024."""
    assert moments(load(tmp_path, LINE)) == [("2024-03-30T12:00:00+01:00", "2024-04-02T12:00:00+02:00")]


@pytest.mark.parametrize(
    ("zone", "offset"),
    [("+01:00", "+01:00"), ("-03:30", "-03:30"), ("+5:45", "+05:45"), ("-0330", "-03:30"), ("UTC", "+00:00"), ("Asia/Kathmandu", "+05:45"), ("America/St_Johns", "-02:30")],
)  # fmt: skip
def test_zones_are_names_or_offsets_east_of_greenwich(zone: str, offset: str, tmp_path: Path) -> None:
    assert moments(load(tmp_path, LINE, timezone=zone))[0][1] == f"2024-04-02T12:00:00{offset}"


def test_a_zone_of_its_own_comes_before_the_common_one_and_a_designator_before_both(tmp_path: Path) -> None:
    lines = [f"{LINE},UTC", LINE.replace("fen", "moor").replace("00:00,", "00:00Z,", 1) + ","]
    found = moments(load(tmp_path, *lines, header=f"{HEADER},timezone"))
    assert found == [
        ("2024-03-30T12:00:00+00:00", "2024-04-02T12:00:00+00:00"),
        ("2024-03-30T12:00:00Z", "2024-04-02T12:00:00+02:00"),
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024/4/2 8:05", "2024-04-02T08:05:00+02:00"),
        ("2024-04-02 08:00:00+00", "2024-04-02T08:00:00+00:00"),
        ("2024-04-02 08:00Z", "2024-04-02T08:00:00Z"),
        ("2024-04-02T08:00:00.75", "2024-04-02T08:00:00+02:00"),
    ],
)
def test_a_time_is_read_as_in_every_other_table(written: str, read: str, tmp_path: Path) -> None:
    assert moments(load(tmp_path, LINE.replace("2024-04-02T12:00:00", written)))[0][1] == read


@pytest.mark.parametrize(
    "written", ["2024-04-02 8:00 PM", "2024-04-02 08:00:00 UTC", "epoch", "infinity", "4/2/2024", "2024-04-02T08:00:60"]
)
def test_what_only_looks_like_a_time_is_named(written: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"deployment fen: deploymentEnd {written} is no datetime"):
        load(tmp_path, LINE.replace("2024-04-02T12:00:00", written))


@pytest.mark.parametrize("start", ["0001-01-02T00:00:00Z", "0001-01-02T00:00:00+00:00"])
def test_a_start_long_before_cameras_is_a_time(start: str, tmp_path: Path) -> None:
    assert moments(load(tmp_path, LINE.replace("2024-03-30T12:00:00", start)))[0][0] == start


def test_an_end_without_a_time_is_the_end_of_its_day_however_long_that_is(tmp_path: Path) -> None:
    """27 October 2024 had 25 hours in Berlin."""
    found = moments(load(tmp_path, "fen,52.1,13.2,2024-10-01,2024-10-27", "moor,52.1,13.2,2024-10-01T12:00,2024-10-01"))
    assert found == [
        ("2024-10-01T00:00:00+02:00", "2024-10-27T23:59:59+01:00"),
        ("2024-10-01T12:00:00+02:00", "2024-10-01T23:59:59+02:00"),
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-10-27T12:00", "2024-10-27T12:00:00+01:00"),
        ("2024-10-27", "2024-10-27T00:00:00+02:00"),
        ("2024-10-28", "2024-10-27T23:59:59+01:00"),
    ],
)
def test_the_cameras_next_deployment_on_that_day_ends_it_earlier(start: str, end: str, tmp_path: Path) -> None:
    lines = ["fen,52.1,13.2,2024-10-01,2024-10-27,c1", f"moor,52.1,13.2,{start},2024-12-01,c1"]
    lines.append("pond,52.1,13.2,2024-10-27,2024-12-01,c2")
    assert moments(load(tmp_path, *lines, header=f"{HEADER},cameraID"))[0][1] == end


def test_a_day_whose_midnight_is_skipped_begins_all_the_same(tmp_path: Path) -> None:
    """In Cairo 23:59:59 on 25 April 2024 was followed by 01:00."""
    line = "fen,52.1,13.2,2024-04-26,2024-05-26"
    assert moments(load(tmp_path, line, timezone="Africa/Cairo"))[0][0] == "2024-04-26T00:00:00+02:00"
    with pytest.raises(UsageError, match="deploymentStart 2024-04-26T00:30:00 does not exist in Africa/Cairo"):
        load(tmp_path, line.replace("2024-04-26", "2024-04-26 00:30"), timezone="Africa/Cairo")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (LINE.replace("52.1", ""), "deployment fen: latitude is empty"),
        (LINE.replace("52.1", "NaN"), "deployment fen: latitude is empty"),
        (LINE.replace("52.1", "90.5"), "deployment fen: latitude 90.5 is above 90"),
        (LINE.replace("13.2", "-180.5"), "deployment fen: longitude -180.5 is below -180"),
        (LINE.replace("13.2", "east"), "deployment fen: longitude east is no number"),
        (LINE.replace("2024-04-02T12:00:00", "2 April"), "deployment fen: deploymentEnd 2 April is no datetime"),
        (f"{LINE}\n{LINE}", "deploymentID fen stands there 2 times; give each period of a camera a deploymentID"),
        (f"{LINE.replace('52.1', '91').replace('13.2', '181')}", r"latitude 91 is above 90 \(and 1 more\)"),
    ],
)  # fmt: skip
def test_a_cell_that_the_standard_does_not_allow_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"it's deployments.csv: .*{complaint}"):
        load(tmp_path, line)


@pytest.mark.parametrize("bounds", ["90,180", "-90,-180", "0,0"])
def test_the_bounds_themselves_are_allowed(bounds: str, tmp_path: Path) -> None:
    assert len(moments(load(tmp_path, LINE.replace("52.1,13.2", bounds)))) == 1


def test_without_a_zone_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no time zone for the camera of deployment fen; give --timezone"):
        load(tmp_path, LINE, timezone=None)
    with pytest.raises(UsageError, match="Mars/Olympus: no time zone"):
        load(tmp_path, LINE, timezone="Mars/Olympus")


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no column 'longitude', only .*; add it"):
        load(tmp_path, LINE, header=HEADER.replace("longitude", "lon"))
