from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import deployments
from trapline.analysis.events import sessions
from trapline.analysis.events.sessions import Gap, Placing

PLACING = Placing((deployments.parse("at={deployment}/{camera}"),), datetime(2024, 6, 1))


def located(place: Path, *moments: datetime | None) -> duckdb.DuckDBPyConnection:
    return read(place, [{} if moment is None else {"captured_at": moment} for moment in moments])


def read(place: Path, facts: list[dict[str, Any]], placing: Placing = PLACING) -> duckdb.DuckDBPyConnection:
    rows = [
        Planted(f"{fact.pop('key', number)}.jpg", np.zeros(3), (0, 0), facts=fact) for number, fact in enumerate(facts)
    ]
    write_result(str(place), "s3://in/at=fen/c1/1.tar", "1.tar", rows, columns("abc", 2))
    connection = duckdb.connect()
    sessions.read(connection, [f"{place}/1.tar.parquet"], placing)
    return connection


def test_a_clip_is_one_frame_and_lasts_and_the_gap_begins_at_its_end(tmp_path: Path) -> None:
    start = datetime(2024, 5, 1, 12)
    clip = {"key": "clip", "media_type": "video", "duration_seconds": 60.5, "captured_at": start}
    later = [{"captured_at": start + timedelta(seconds=seconds)} for seconds in (5, 65, 200)]
    frames = [{**clip, "frame_seconds": float(second)} for second in (0, 30)]
    connection = read(tmp_path, [clip, *frames, *later])
    sessions.split(connection, "fen", Gap(10))
    found = connection.sql("select frames, started_at, ended_at from facts order by event").fetchall()
    assert found == [
        (3, start, start + timedelta(seconds=65)),
        (1, start + timedelta(seconds=200), start + timedelta(seconds=200)),
    ]
    connection = read(tmp_path, [clip, *frames])
    sessions.split(connection, "fen", Gap(10))
    assert connection.sql("select ended_at from facts").fetchall() == [(start + timedelta(seconds=60.5),)]


@pytest.mark.parametrize(
    ("zone", "offset", "shown"),
    [
        ("Europe/Berlin", "+00:00", datetime(2024, 5, 1, 14)),
        ("Europe/Berlin", "+02:00", datetime(2024, 5, 1, 12)),
        ("America/St_Johns", "+00:00", datetime(2024, 5, 1, 9, 30)),
        ("Australia/Lord_Howe", "-02:30", datetime(2024, 5, 2, 1)),
        ("+13:00", "+00:00", datetime(2024, 5, 2, 1)),
        ("Europe/Berlin", None, datetime(2024, 5, 1, 12)),
        (None, "+00:00", datetime(2024, 5, 1, 12)),
    ],
)
def test_a_time_with_an_offset_is_put_on_the_cameras_clock(
    zone: str | None, offset: str | None, shown: datetime, tmp_path: Path
) -> None:
    facts = [{"captured_at": datetime(2024, 5, 1, 12), "captured_at_offset": offset}]
    connection = read(tmp_path, facts, replace(PLACING, timezone=zone))
    assert connection.sql("select captured_at from located").fetchall() == [(shown,)]


@pytest.mark.parametrize("year", [1970, 1980, 2000, 2025, 2099])
def test_a_time_that_no_picture_can_have_is_a_reason(year: int, tmp_path: Path) -> None:
    found = located(tmp_path, datetime(year, 1, 1), datetime(2001, 1, 1), datetime(2024, 5, 31), None)
    reasons = found.sql("select reason from located order by file_row_number").fetchall()
    assert reasons == [("implausible_time",), (None,), (None,), ("no_time",)]


def test_the_gap_is_inclusive_and_measured_between_neighbours(tmp_path: Path) -> None:
    base = datetime(2024, 5, 1, 23, 59, 30)
    steps = [0, 10, 20, 30.001]
    moments = [datetime.fromtimestamp(base.timestamp() + step) for step in steps]
    connection = located(tmp_path, *moments)
    sessions.split(connection, "fen", Gap(10))
    assert connection.sql("select frames from facts order by event").fetchall() == [(3,), (1,)]
    rows = connection.sql(sessions.mapping()).fetchall()
    assert [(row[1], row[2], row[5]) for row in rows] == [
        ("fen", "c1", 1),
        ("fen", "c1", 2),
        ("fen", "c1", 3),
        ("fen", "c1", 1),
    ]


def test_an_event_keeps_its_id_when_others_come(tmp_path: Path) -> None:
    connection = located(tmp_path, datetime(2024, 5, 2))
    sessions.split(connection, "fen", Gap())
    before = connection.sql("select event_id from facts").fetchall()
    connection = located(tmp_path, datetime(2024, 5, 1), datetime(2024, 5, 2))
    sessions.split(connection, "fen", Gap())
    assert set(before) < set(connection.sql("select event_id from facts").fetchall())
