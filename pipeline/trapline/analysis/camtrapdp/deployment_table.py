"""Read a user's table of deployments, find the time zone of each row, and check it against the standard's schema."""

from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import csv_input, deployment_periods, time_zones
from trapline.analysis.camtrapdp import validation
from trapline.analysis.camtrapdp.validation import DESIGNATOR, SQL_TYPES
from trapline.analysis.sql import literal
from trapline.errors import UsageError

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
# A camera's clock shows local time; a moment is written with the offset of the clock from UTC, in minutes.
_MACROS = """
create or replace macro offset_text(minutes) as
    (case when minutes < 0 then '-' else '+' end)
    || lpad((abs(minutes) // 60)::varchar, 2, '0') || ':' || lpad((abs(minutes) % 60)::varchar, 2, '0');
create or replace macro offset_at(local, zone) as
    datediff('minute', timezone('UTC', timezone(zone, local)), local);
create or replace macro is_skipped(local, zone) as timezone(zone, timezone(zone, local)) <> local;
create or replace macro stamp(local, minutes) as strftime(local, '%Y-%m-%dT%H:%M:%S') || offset_text(minutes);
"""


def load(connection: duckdb.DuckDBPyConnection, url: str, timezone: str | None) -> None:
    """Create the table `deployments` and macros for times.

    It has the standard's columns as text, `zone`, `written_end` and `whole_day`. If an end was written as a date, it
    includes that day: deploymentEnd is then the last second of the day, or the start of the camera's next deployment on
    that day, and `written_end` is the start of the day. For other ends both are the same.

    Args:
        connection: that gets the table; its TimeZone is set to UTC.
        url: a CSV with columns of the standard, in any order, and perhaps `timezone`; others are ignored.
        timezone: of the cameras' clocks where the table has none: a name (`Europe/Berlin`) or an offset (`+01:00`).

    Raises:
        UsageError: the table cannot be read, lacks a zone, or says what the standard does not allow.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    connection.execute(f"set TimeZone = 'UTC'; {_MACROS}")
    standard = validation.schema("deployments")
    fields, missing = standard["fields"], {*standard["missingValues"]}
    required = [field["name"] for field in fields if field["constraints"]["required"]]
    optional = [field["name"] for field in fields if field["name"] not in required]
    rows = csv_input.read(url, required, [*optional, "timezone"]).to_pylist()
    deployment_periods.refuse_repeated((row["deploymentID"] for row in rows), url)
    names = [*(field["name"] for field in fields), "timezone"]
    columns = {name: [_present(row.get(name), missing) for row in rows] for name in names}
    for field in fields:
        if field["type"] == "datetime":
            columns[field["name"]] = [cell and _as_iso(cell) for cell in columns[field["name"]]]
    connection.register("given", pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}))
    zone = f"coalesce(timezone, {literal(timezone or '')})"
    connection.execute(f"""
        create or replace temp table zoned as
        select *, regexp_replace({zone}, '^[+-]', 'GMT\\0') as zone,
            regexp_full_match(deploymentEnd, '{_DAY}') as whole_day
        from given""")
    _check_zones(connection, url)
    _check_times(connection, url, [field["name"] for field in fields if field["type"] == "datetime"])
    selected = ", ".join(_column(field) for field in fields)
    connection.execute(f"""
        create or replace temp table deployments as
        with stamped as (
            select {selected}, zone, whole_day,
                try_cast(zoned.deploymentEnd as timestamp) + to_days(1) - to_seconds(1) as last_second
            from zoned
        ), followed as (
            select *, stamp(last_second, offset_at(last_second, zone)) as day_end, lead(deploymentStart) over (
                partition by coalesce(cameraID, locationID, locationName, deploymentID)
                order by try_cast(deploymentStart as timestamptz)) as next_start
            from stamped
        )
        select * exclude (last_second, day_end, next_start) replace (
                case when not whole_day or day_end is null then deploymentEnd
                     when try_cast(next_start as timestamptz)
                         between try_cast(deploymentEnd as timestamptz) and try_cast(day_end as timestamptz)
                         then next_start
                     else day_end end as deploymentEnd),
            deploymentEnd as written_end
        from followed""")
    validation.check(connection, "deployments", {"deployments": "deployments"}, url)
    _check_order(connection, url)


def _present(cell: str | None, missing: set[str]) -> str | None:
    return None if cell is None or cell in missing else cell


def _as_iso(cell: str) -> str:
    """Return a time as ISO 8601 with its designator, and a day without an hour; what is no time stays as it is.

    DuckDB is not asked: it takes `8:00 PM` for 8:00, and leaves out `UTC` after a time.
    """
    try:
        moment = csv_input.moment(cell)
    except ValueError:
        return cell
    if csv_input.is_day(cell):
        return moment.date().isoformat()
    text = moment.isoformat(timespec="seconds")
    return text.replace("+00:00", "Z") if cell[-1] in "Zz" else text


def _column(field: dict[str, Any]) -> str:
    name = f'"{field["name"]}"'
    if SQL_TYPES.get(field["type"]) != "timestamptz":
        return name
    local = f"case when regexp_full_match({name}, '{_DAY}(T[0-9:]{{8}})?') then try_cast({name} as timestamp) end"
    return (
        f"case when regexp_matches({name}, '{DESIGNATOR}') then {name} "
        f"else coalesce(stamp({local}, offset_at({local}, zone)), {name}) end as {name}"
    )


def _check_zones(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    for zone, deployment in connection.sql("select zone, min(deploymentID) from zoned group by zone").fetchall():
        if not zone:
            raise UsageError(
                f"{url}: no time zone for the camera of deployment {deployment}; "
                "give --timezone (Europe/Berlin, +01:00), or a column timezone"
            )
        try:
            time_zones.require_known(connection, zone)
        except ValueError as error:
            raise UsageError(f"{url}: {error}") from error


def _check_times(connection: duckdb.DuckDBPyConnection, url: str, names: list[str]) -> None:
    """Raise UsageError with a time that does not exist in its zone; a date does, where its midnight is skipped, too."""
    for name in names:
        found = connection.sql(f"""
            select deploymentID, "{name}", zone from zoned where not regexp_matches("{name}", '{DESIGNATOR}')
            and contains("{name}", 'T') and is_skipped(try_cast("{name}" as timestamp), zone)
            limit 1""").fetchall()
        for deployment, time, zone in found:
            raise UsageError(
                f"{url}: deployment {deployment}: {name} {time} does not exist in {zone}, whose clocks skip it; "
                "write it with its offset from UTC"
            )


def _check_order(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    found = connection.sql("""
        select deploymentID, deploymentStart, deploymentEnd from deployments
        where deploymentEnd::timestamptz < deploymentStart::timestamptz limit 1""").fetchall()
    for deployment, start, end in found:
        raise UsageError(f"{url}: deployment {deployment}: deploymentEnd {end} lies before deploymentStart {start}")
