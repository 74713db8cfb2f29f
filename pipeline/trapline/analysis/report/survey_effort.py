"""Where each camera stood and how long: what a deployments table says, or else its first and its last image.

Tables in SQL:

    events          the rows of EVENTS: event_id, deployment, station (a camera's name, as in the table `images`),
                    label, probability, started_at, ended_at
    units           one row per camera and period in which it stood at one place: unit (its name), site, starts, ends,
                    days (null where nothing says how long), declared (by the deployments table), latitude, longitude
    event_units     event_id, and the unit in whose period the event lies; null where it lies in none

All times are those of the cameras' clocks. The row of a deployment is found as `trapline export-camtrapdp` finds it: by
deploymentID, or else by cameraID, locationID or locationName (or locationID/cameraID, locationName/cameraID) and time.
"""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from trapline.analysis import csv_input
from trapline.analysis.deployments import Source
from trapline.analysis.sql import read_parquet
from trapline.errors import UsageError

# Days are often written without a time, and clocks are some hours wrong.
_TOLERANCE_S = 86_400

_ID = "deploymentID"
_TEXTS = ("cameraID", "locationID", "locationName")
_TIMES = ("deploymentStart", "deploymentEnd")
_DEGREES = {"latitude": 90, "longitude": 180}
_PLACES = "[cameraID, locationID, locationName, locationID || '/' || cameraID, locationName || '/' || cameraID]"


def read(
    connection: duckdb.DuckDBPyConnection, events: Sequence[str], sources: Sequence[Source], table: str | None
) -> None:
    """Create the tables.

    Args:
        connection: has the table `images` of `image_table.py`.
        events: URLs of the table of events.
        sources: by which the deployments of these events were found.
        table: URL of a CSV with columns of Camtrap DP's deployments: deploymentID, and of the others those that it has;
            None for none.

    Raises:
        UsageError: the CSV is no such table, has a time or a place that is none, or two deployments of one camera that
            overlap.
        StorageError, TransientError: a store refuses, or does not answer.
    """
    apart = any({"deployment", "camera"} <= source.values.keys() for source in sources)
    station = "case when camera is distinct from deployment then concat_ws('/', deployment, camera) else deployment end"
    rows = read_parquet(events)
    names = connection.sql(f"from {rows} limit 0").columns
    label, probability = ("taxon", "taxon_probability") if "taxon" in names else ("species", "probability")
    connection.execute(f"""
        create or replace temp table events as
        select event_id, deployment, {station if apart else "deployment"} as station, {label}::varchar as label,
            {probability} as probability, started_at::timestamp as started_at, ended_at::timestamp as ended_at
        from {rows}""")
    _read_deployments(connection, table)
    _find_periods(connection)
    if table:
        _refuse_overlaps(connection, table)
    _place(connection)


def _read_deployments(connection: duckdb.DuckDBPyConnection, url: str | None) -> None:
    """Create `declared`: the deployments table with its times as the clocks show them and numbers as numbers."""
    names = (_ID, *_TEXTS, *_TIMES, *_DEGREES)
    read_in = csv_input.read(url, [_ID], names[1:]) if url else pa.table({_ID: pa.array([], pa.string())})
    for name in names:
        if name not in read_in.column_names:
            read_in = read_in.append_column(name, pa.nulls(len(read_in), pa.string()))
    connection.register("rows_of_deployments", read_in)
    # A time may have an offset from UTC: without it, it is what the camera's clock shows. A day ends at midnight.
    times = ", ".join(
        f"""try_cast(replace(left("{name}", 19), 'T', ' ') as timestamp)
            + case when '{name}' = 'deploymentEnd' and length("{name}") = 10
              then interval 1 day else interval 0 day end as "{name}" """
        for name in _TIMES
    )
    degrees = ", ".join(
        f"""case when abs(try_cast("{name}" as double)) <= {most} then try_cast("{name}" as double) end as "{name}" """
        for name, most in _DEGREES.items()
    )
    connection.execute(f"""
        create or replace temp table declared as
        select * replace ({times}, {degrees}) from rows_of_deployments where {_ID} is not null""")
    for name in (*_TIMES, *_DEGREES):
        found = connection.sql(f"""
            select {_ID}, given."{name}" from rows_of_deployments as given join declared using ({_ID})
            where given."{name}" is not null and declared."{name}" is null limit 1""").fetchall()
        for deployment, said in found:
            what = "no time; write it as 2024-05-01T12:00:00" if name in _TIMES else "no angle in degrees; correct it"
            raise UsageError(f"{url}: deployment {deployment}: {name} {said} is {what}")
    found = connection.sql(f"""
        select {_ID}, deploymentStart, deploymentEnd from declared
        where deploymentEnd < deploymentStart limit 1""").fetchall()
    for deployment, start, end in found:
        raise UsageError(f"{url}: deployment {deployment}: deploymentEnd {end} lies before deploymentStart {start}")
    found = connection.sql(f"select {_ID} from declared group by all having count(*) > 1 limit 1").fetchall()
    for (deployment,) in found:
        raise UsageError(f"{url}: has several rows of deployment {deployment}; leave one")


def _find_periods(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `periods`: each row of the deployments table with each camera that it is of, and cameras without a row."""
    connection.execute(f"""
        create or replace temp table periods as
        with stations as (
            select deployment, station, min(started_at) as first, max(ended_at) as last from events group by all
        ), names as (
            select distinct unnest({_PLACES}) as name, {_ID} from declared
        ), matched as (
            select station, {_ID} from stations join declared on deployment = {_ID}
            union select station, names.{_ID} from stations join names on name in (deployment, station)
            where deployment not in (select {_ID} from declared)
        ), known as (
            select {_ID}, station, first, last, latitude, longitude, coalesce(locationName, locationID) as place,
                deploymentStart as starts, deploymentEnd as ends,
                coalesce(deploymentEnd, lead(deploymentStart) over (
                    partition by station order by deploymentStart)) as until,
                count(*) over (partition by station) as of_station, count(*) over (partition by {_ID}) as of_row
            from declared left join matched using ({_ID}) left join (
                select station, min(first) as first, max(last) as last from stations group by station) using (station)
        )
        select case when station is null or (of_station > 1 and of_row = 1) then {_ID}
                    when of_station > 1 then concat({_ID}, ' ', station) else station end as unit,
            station, {_ID}, place, latitude, longitude,
            coalesce(starts, date_trunc('day', first)) as starts,
            coalesce(until, date_trunc('day', last) + interval 1 day) as ends,
            starts is not null and until is not null as declared
        from known
        union all
        select station, station, null, null, null, null, date_trunc('day', min(first)),
            date_trunc('day', max(last)) + interval 1 day, false
        from stations where station not in (select station from matched) group by station""")


def _refuse_overlaps(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    found = connection.sql(f"""
        select station, one.{_ID}, two.{_ID} from periods as one join periods as two using (station)
        where one.{_ID} < two.{_ID} and one.starts < two.ends and two.starts < one.ends limit 1""").fetchall()
    for station, one, two in found:
        raise UsageError(
            f"{url}: deployments {one} and {two} are both of {station} and overlap in time, so its events belong to "
            "either; correct deploymentStart or deploymentEnd"
        )


def _place(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(f"""
        create or replace temp table event_units as
        select event_id, arg_min(unit, distance) filter (distance <= {_TOLERANCE_S}) as unit from (
            select event_id, unit, coalesce(greatest(epoch(starts) - epoch(started_at),
                epoch(started_at) - epoch(ends), 0), 0) as distance
            from events left join periods using (station))
        group by event_id;
        create or replace temp table units as
        with seen as (
            select camera as station, any_value(site) as site, median(latitude) as latitude,
                median(longitude) as longitude from images where camera is not null group by camera
        )
        select unit, coalesce(seen.site, place, '(none said)') as site, starts, ends,
            nullif(greatest(epoch(ends) - epoch(starts), 0), 0) / 86400 as days, declared,
            coalesce(periods.latitude, seen.latitude) as latitude,
            coalesce(periods.longitude, seen.longitude) as longitude
        from periods left join seen using (station)""")
