from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from trapline.analysis.camtrapdp import deployment_table, placement
from trapline.errors import UsageError

HEADER = "deploymentID,latitude,longitude,deploymentStart,deploymentEnd,cameraID,locationID"
YEAR = "fen,52,13,2024-01-01,2024-12-31,,"


def placed(folder: Path, table: list[str], *events: tuple[str, str, float], zone: str = "Europe/Berlin") -> tuple[duckdb.DuckDBPyConnection, list[str]]:  # fmt: skip
    """Place events of (deployment, start, seconds), each of an image at its start and one at its end."""
    (folder / "d.csv").write_text(
        "\n".join(
            [HEADER, *(line.replace("-01,", "-01T00:00:00,", 1).replace("-31,", "-31T00:00:00,", 1) for line in table)]
        )
    )
    connection = duckdb.connect()
    deployment_table.load(connection, f"{folder}/d.csv", zone)
    connection.execute(
        "create table events (event_id text, deployment text, started_at timestamp_ms, ended_at timestamp_ms)"
    )
    connection.execute("create table mapping (image_uri text, event_id text, captured_at timestamp_ms)")
    for number, (deployment, start, seconds) in enumerate(events):
        begin = datetime.fromisoformat(start)
        end = begin + timedelta(seconds=seconds)
        connection.execute("insert into events values (?, ?, ?, ?)", [f"e{number}", deployment, begin, end])
        for moment in (begin, end):
            connection.execute("insert into mapping values (?, ?, ?)", [f"{number}-{moment}", f"e{number}", moment])
    return connection, placement.place(connection, f"{folder}/d.csv")


def stamps(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return connection.sql(
        "select stamp(started_at, minutes), stamp(ended_at, minutes) from timed order by event_id"
    ).fetchall()


def lasts(connection: duckdb.DuckDBPyConnection) -> list[float]:
    return [
        (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        for start, end in stamps(connection)
    ]


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Europe/Berlin", "2024-03-31 02:59:50"), ("Europe/Berlin", "2024-03-31 01:59:50"), ("Europe/Berlin", "2024-10-27 02:59:50"),
        ("Europe/Berlin", "2024-10-27 01:59:50"), ("America/New_York", "2024-03-10 01:59:50"), ("America/New_York", "2024-03-10 02:59:50"),
        ("America/New_York", "2024-11-03 01:59:50"), ("Australia/Lord_Howe", "2024-04-07 01:59:50"), ("Asia/Kathmandu", "2024-03-31 02:59:50"),
        ("Australia/Lord_Howe", "2024-10-06 01:59:50"), ("Pacific/Auckland", "2024-09-29 01:59:50"), ("America/Santiago", "2024-04-06 23:59:50"),
        ("America/Santiago", "2024-09-07 23:59:50"), ("+13:00", "2024-09-29 01:59:50"),
    ],
)  # fmt: skip
def test_an_event_is_as_long_as_the_clock_says_over_a_change_of_summer_time(
    zone: str, start: str, tmp_path: Path
) -> None:
    connection, _ = placed(tmp_path, [YEAR], ("fen", start, 20), zone=zone)
    assert lasts(connection) == [20]


def test_the_times_of_images_lie_within_their_event(tmp_path: Path) -> None:
    connection, _ = placed(tmp_path, [YEAR], ("fen", "2024-10-27 02:59:50", 20), ("fen", "2024-03-31 01:30:00", 7200))
    wrong = connection.sql("""
        select * from placed join timed using (event_id) where not
        stamp(placed.captured_at, placed.minutes)::timestamptz
        between stamp(started_at, timed.minutes)::timestamptz and stamp(ended_at, timed.minutes)::timestamptz""")
    assert wrong.fetchall() == []
    assert lasts(connection) == [20, 7200]


def test_a_clock_that_shows_a_skipped_time_does_not_follow_the_zone_and_that_is_said(tmp_path: Path) -> None:
    events = [("fen", "2024-03-31 02:59:50", 20), ("fen", "2024-07-01 12:00:00", 0), ("moor", "2024-07-01 12:00:00", 0)]
    connection, said = placed(tmp_path, [YEAR, YEAR.replace("fen", "moor")], *events)
    assert stamps(connection) == [
        ("2024-03-31T02:59:50+01:00", "2024-03-31T03:00:10+01:00"),
        ("2024-07-01T12:00:00+01:00", "2024-07-01T12:00:00+01:00"),
        ("2024-07-01T12:00:00+02:00", "2024-07-01T12:00:00+02:00"),
    ]
    (warning,) = said
    assert warning.startswith("deployment fen: its clock shows 2024-03-31 02:59:50, a time that Europe/Berlin skips")


def test_an_event_outside_of_its_deployment_has_none(tmp_path: Path) -> None:
    times = [
        "1970-01-01",
        "2000-01-01",
        "2023-12-30",
        "2023-12-31 12:00",
        "2024-12-31 23:00",
        "2025-01-02",
        "2099-01-01",
    ]
    connection, _ = placed(tmp_path, [YEAR], *(("fen", time, 0) for time in times), ("moor", "2024-05-01", 0))
    found = connection.sql("select deploymentID, reason from assigned order by event_id").fetchall()
    outside, inside = (None, "outside_deployment"), ("fen", None)
    assert found == [outside, outside, outside, inside, inside, outside, outside, (None, "deployment_not_in_table")]


@pytest.mark.parametrize("name", ["c3", "north", "north/c3"])
def test_a_camera_that_moved_has_the_deployment_of_its_time(name: str, tmp_path: Path) -> None:
    table = [
        "d1,52,13,2024-01-01,2024-06-01T12:00:00,c3,north", "d2,53,13,2024-06-01T12:00:00,2024-12-31,c3,north",
        "d0,52,13,2024-01-01,2024-12-31,c9,south",
    ]  # fmt: skip
    events = [
        (name, "2024-05-31", 0),
        (name, "2024-06-01 11:59:59", 0),
        (name, "2024-06-01 12:00:01", 0),
        (name, "2024-08-01", 0),
    ]
    connection, _ = placed(tmp_path, table, *events, (name, "2022-01-01", 0), ("d2", "2024-08-01", 0))
    found = connection.sql("select coalesce(deploymentID, reason) from assigned order by event_id").fetchall()
    assert [each for (each,) in found] == ["d1", "d1", "d2", "d2", "outside_deployment", "d2"]


def test_between_two_deployments_of_a_camera_an_event_has_none_and_an_end_without_a_time_includes_its_day(
    tmp_path: Path,
) -> None:
    table = ["d1,52,13,2024-01-01,2024-06-02,c3,", "d2,53,13,2024-06-04T12:00:00,2024-12-30,c3,"]
    times = ["2023-12-31 23:59", "2024-06-02 23:59", "2024-06-03 00:01", "2024-06-04 11:59", "2024-06-04 12:01"]
    connection, _ = placed(tmp_path, table, *(("c3", time, 0) for time in times))
    found = connection.sql("select coalesce(deploymentID, reason) from assigned order by event_id").fetchall()
    out = "outside_deployment"
    assert [each for (each,) in found] == [out, "d1", out, out, "d2"]


def test_the_last_day_of_a_deployment_is_as_long_as_its_zone_makes_it(tmp_path: Path) -> None:
    """Of 25 hours on 27 October 2024 in Berlin, and of 23 on 31 March."""
    # With a blank, for `placed` gives such days a time.
    table = ["d1,52,13,2024-01-01,2024-03-31 ,c3,", "d2,52,13,2024-04-03,2024-10-27,c3,"]
    times = ["2024-03-31 23:59:59", "2024-04-01 00:00:01", "2024-10-27 23:59:59", "2024-10-28 00:00:01"]
    connection, _ = placed(tmp_path, table, *(("c3", time, 0) for time in times))
    found = connection.sql("select coalesce(deploymentID, reason) from assigned order by event_id").fetchall()
    assert [each for (each,) in found] == ["d1", "outside_deployment", "d2", "outside_deployment"]


def test_a_name_of_two_deployments_at_the_same_time_is_refused(tmp_path: Path) -> None:
    table = ["d1,52,13,2024-01-01,2024-06-02T00:00:00,c3,", "d2,53,13,2024-06-01T00:00:00,2024-12-31,c3,"]
    with pytest.raises(UsageError, match=r"d\.csv: deployments d1 and d2 are both of c3 and overlap in time"):
        placed(tmp_path, table, ("c3", "2024-05-01", 0))
    connection, _ = placed(tmp_path, table, ("d1", "2024-05-01", 0))  # which asks for no camera
    assert len(stamps(connection)) == 1
