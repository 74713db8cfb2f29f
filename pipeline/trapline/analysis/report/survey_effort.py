"""Where each camera stood and how long: from the deployments of EVENTS, else from its first image to its last.

Tables in SQL:

    events          the rows of EVENTS: event_id, unit, label, probability, started_at, ended_at, in_span (whether their
                    time may be right)
    units           a row per unit, which is a camera in one deployment: unit (its name), site, starts, ends, days (null
                    where nothing says how long), declared (by a deployment's start and end), latitude, longitude

Units of deployments without any event are included. All times are those of the cameras' clocks.
"""

from collections.abc import Sequence
from datetime import datetime

import duckdb

from trapline.analysis.deployments import Source
from trapline.analysis.event_dataset import EventFiles
from trapline.analysis.sql import read_parquet


def read(
    connection: duckdb.DuckDBPyConnection,
    files: EventFiles,
    sources: Sequence[Source],
    span: tuple[datetime | None, datetime | None] = (None, None),
) -> None:
    """Create the tables.

    Args:
        connection: has the table `images` of `image_table.py`.
        files: of EVENTS.
        sources: by which the deployments of these events were found.
        span: first and last day of the archive; where no deployment says when a camera stood there, events before and
            after do not either, for their clock is probably wrong: one of 2016 would be eight years of effort.

    Raises:
        StorageError, TransientError: a store refuses, or does not answer.
    """
    # Where a source names both, a deployment may have several cameras; elsewhere a camera's name is part of the other.
    apart = any({"deployment", "camera"} <= source.values.keys() for source in sources)
    unit = "case when camera <> deployment then concat_ws('/', deployment, camera) else deployment end"
    if files.deployments:
        declared = f"from {read_parquet(files.deployments)}"
    else:
        declared = """select null::varchar as deployment, null::varchar as location, null::varchar as camera,
            null::double as latitude, null::double as longitude, null::timestamp as started_at,
            null::timestamp as ended_at where false"""
    connection.execute(
        f"""
        create or replace temp table events as
        with given as (select deployment from ({declared}) where started_at is not null and ended_at is not null)
        select event_id, deployment, {unit if apart else "deployment"} as unit, species::varchar as label, probability,
            started_at::timestamp as started_at, ended_at::timestamp as ended_at, best_frame,
            coalesce(started_at::date between $first::date and $last::date, true)
                or deployment in (from given) as in_span
        from {read_parquet(files.events)}""",
        {"first": span[0], "last": span[1]},
    )
    connection.execute(
        f"""
        create or replace temp table units as
        with declared as (
            -- A period without an end lasts until its camera's next one.
            select * replace (coalesce(ended_at, case when camera is not null then
                lead(started_at) over (partition by location, camera order by started_at) end) as ended_at)
            from ({declared})
        ), seen as (
            -- An image of each event says where a camera is: there are far fewer events than images.
            select unit, any_value(deployment) as deployment, min(started_at) filter (in_span) as first,
                max(ended_at) filter (in_span) as last,
                any_value(site) as site, median(latitude) as latitude, median(longitude) as longitude
            from events left join images on best_frame = image_uri group by unit
        ), known as (
            select coalesce(unit, declared.deployment) as unit, coalesce(location, site, '(none said)') as site,
                coalesce(started_at, date_trunc('day', first)) as starts,
                coalesce(ended_at, date_trunc('day', last) + interval 1 day) as ends,
                started_at is not null and ended_at is not null as declared,
                coalesce(declared.latitude, seen.latitude) as latitude,
                coalesce(declared.longitude, seen.longitude) as longitude
            from declared full join seen using (deployment)
        )
        -- The last day of a period ends a millisecond before midnight.
        select *, nullif(greatest(round((epoch(ends) - epoch(starts)) / 86400, 3), 0), 0)::double as days from known"""
    )
