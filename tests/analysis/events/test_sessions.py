from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import deployments
from trapline.analysis.events import sessions
from trapline.analysis.events.sessions import Gap, Placing

PLACING = Placing((deployments.parse("at={deployment}/{camera}"),), datetime(2024, 6, 1))


def located(place: Path, *moments: datetime | None) -> duckdb.DuckDBPyConnection:
    images = [
        Planted(f"{number}.jpg", np.zeros(3), (0, 0), facts={} if moment is None else {"captured_at": moment})
        for number, moment in enumerate(moments)
    ]
    write_result(str(place), "s3://in/at=fen/c1/1.tar", "1.tar", images, columns("abc", 2))
    connection = duckdb.connect()
    sessions.read(connection, [f"{place}/1.tar.parquet"], PLACING)
    return connection


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
