from datetime import datetime

import pytest

from trapline.analysis import sql, time_zones


@pytest.mark.parametrize(
    ("zone", "hour"),
    [("Europe/Berlin", 14), ("+02:00", 14), ("-0330", 8), ("UTC", 12), ("GMT", 12), ("GMT+2", 14), ("Etc/GMT+2", 10),
     ("+14:00", 2), ("Pacific/Kiritimati", 2), ("-12:00", 0), ("Japan", 21)],
)  # fmt: skip
def test_a_zone_is_a_name_or_an_offset(zone: str, hour: int) -> None:
    connection = sql.connect()
    time_zones.require_known(connection, zone)
    ((found,),) = connection.execute(
        "select timezone(?, timestamptz '2024-07-01 12:00:00+00')", [time_zones.duckdb_name(zone)]
    ).fetchall()
    assert isinstance(found, datetime)
    assert found.hour == hour


@pytest.mark.parametrize(
    ("zone", "words"),
    # To DuckDB the first six are zones: of Bangladesh, India, Alaska, Chicago, Guadalcanal and Brussels.
    [*((zone, "stands for different time zones") for zone in ("BST", "ist", "AST", "CST", "SST", "CET")),
     *((zone, "no time zone") for zone in ("AEST", "Mars/Olympus", "", "local", "+25:00", "+1.5")),
     ("+20:00", "no clock differs so much from UTC"), ("-12:30", "no clock differs so much from UTC")],
)  # fmt: skip
def test_what_could_be_another_zone_is_none(zone: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{zone.replace('+', '[+]')}: {words}.*; give a name"):
        time_zones.require_known(sql.connect(), zone)
