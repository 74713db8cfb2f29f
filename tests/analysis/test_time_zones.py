from datetime import UTC, datetime, timedelta, timezone

import pytest

from trapline.analysis import sql, time_zones
from trapline.analysis.time_zones import CameraClocks


@pytest.mark.parametrize(
    ("zone", "hour"),
    [("Europe/Berlin", 14), ("+02:00", 14), ("-0330", 8), ("UTC", 12), ("GMT", 12), ("CET", 14), ("GMT+2", 14), ("Etc/GMT+2", 10),
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
    # To DuckDB the first six are zones: of Bangladesh, India, Alaska, Chicago, Guadalcanal and New York.
    [*((zone, "is an abbreviation, and may stand for several") for zone in ("BST", "ist", "AST", "CST", "SST", "EST")),
     *((zone, "no time zone") for zone in ("AEST", "Mars/Olympus", "", "local", "+25:00", "+1.5")),
     ("+20:00", "no clock differs so much from UTC"), ("-12:30", "no clock differs so much from UTC")],
)  # fmt: skip
def test_what_could_be_another_zone_is_none(zone: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{zone.replace('+', '[+]')}: {words}.*; give a name"):
        time_zones.require_known(sql.connect(), zone)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "-03:30", "Asia/Kathmandu"]
)
def test_clocks_show_what_duckdb_says_on_each_side_of_each_change(zone: str) -> None:
    connection = sql.connect()
    clocks = CameraClocks(connection)
    moments = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours) for hours in range(0, 366 * 24, 5)]
    want = connection.execute(
        "select timezone(?, unnest(?::timestamptz[]))", [time_zones.duckdb_name(zone), moments]
    ).fetchall()
    assert [clocks.show(zone, moment) for moment in moments] == [shown for (shown,) in want]


def test_a_table_of_any_length_asks_once_for_a_day() -> None:
    connection = sql.connect()
    clocks = CameraClocks(connection)
    noon = datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert clocks.show("Europe/London", noon) == datetime(2024, 7, 1, 11)
    connection.close()
    assert clocks.show("Europe/London", noon + timedelta(hours=1)) == datetime(2024, 7, 1, 12)


@pytest.mark.parametrize(("moment", "zone"), [(datetime.max, "+01:00"), (datetime.min, "-01:00")])
def test_a_year_that_there_is_not_is_no_time(moment: datetime, zone: str) -> None:
    with pytest.raises(ValueError, match="outside of the years 1 to 9999"):
        CameraClocks(sql.connect()).show(zone, moment.replace(tzinfo=UTC))
