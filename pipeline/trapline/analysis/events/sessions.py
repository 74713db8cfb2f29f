"""Images become frames of events, in DuckDB: one camera, no longer gap than allowed, across shards, folders, midnight.

Tables of SQL: `stored` has the rows of results, with `filename` and `file_row_number`; `located` has those of images,
and not of their crops, with `deployment`, `camera` and why an image cannot be in an event; `frames` has the images of
one deployment, and `facts` its events. Images of one moment stay in the order of their files, and of the rows in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from trapline.analysis import deployments
from trapline.analysis.deployments import Source
from trapline.analysis.sql import literal, read_parquet

NO_TIME = "no_time"
NO_DEPLOYMENT = "no_deployment"


@dataclass(frozen=True)
class Gap:
    """Where one event ends and the next begins.

    Attributes:
        seconds: between two images of a camera, one after the other, up to which they are one event.
        max_frames: most images in an event; what goes on is the next event. None: as many as there are.
    """

    seconds: float = 60.0
    max_frames: int | None = None


def read(connection: duckdb.DuckDBPyConnection, urls: Sequence[str], sources: Sequence[Source]) -> None:
    """Makes `stored` and `located` views of these result files; reads nothing yet."""
    connection.execute(f"create or replace temp view stored as from {read_parquet(urls)}")
    has_crops = "crop" in connection.sql("from stored limit 0").columns
    connection.execute(f"""
        create or replace temp view located as
        select *, nullif(concat_ws(', ',
            case when captured_at is null then '{NO_TIME}' end,
            case when deployment is null then '{NO_DEPLOYMENT}' end), '') as reason
        from (
            select *, {deployments.located(sources)}
            from stored where {"crop is null" if has_crops else "true"}
        )""")


def split(connection: duckdb.DuckDBPyConnection, deployment: str, gap: Gap) -> None:
    """Makes `frames` the images of a deployment by camera and time, and `facts` what there is to know of each event.

    `frames` has `position` (1, 2 …), `event` (the position of its first frame) and `frame` (1, 2 … in it). An
    `event_id` is a digest of deployment, camera, start and, where `max_frames` lets several events start at one moment,
    which of them it is: it does not depend on what else there is.
    """
    # Of a session, which a gap ends, to an event, which a count may end: both are known by their first position.
    first = f"begin + (position - begin) // {gap.max_frames} * {gap.max_frames}" if gap.max_frames else "begin"
    connection.execute(f"""
        create or replace temp table frames as
        with clock as (
            select image_uri, status, camera, captured_at, filename, file_row_number,
                row_number() over clock as position,
                camera is not distinct from lag(camera) over clock
                    and captured_at - lag(captured_at) over clock <= to_milliseconds({round(gap.seconds * 1000)})
                    as goes_on
            from located where reason is null and deployment = {literal(deployment)}
            window clock as (order by camera, captured_at, filename, file_row_number)
        ), sessions as (
            select *, max(case when not goes_on then position end) over (order by position) as begin from clock
        )
        select * exclude (begin, goes_on), {first} as event, position - event + 1 as frame from sessions""")
    connection.execute(f"""
        create or replace temp table facts as
        with events as (
            select event, {literal(deployment)} as deployment, any_value(camera) as camera,
                min(captured_at) as started_at, max(captured_at) as ended_at, count(*)::integer as frames,
                (count(*) filter (status = 'ok'))::integer as ok,
                (count(*) filter (status = 'salvaged'))::integer as salvaged,
                (count(*) filter (status = 'failed'))::integer as failed
            from frames group by event
        )
        select *, left(sha256(concat_ws(chr(10), deployment, camera, epoch_ms(started_at),
            row_number() over (partition by camera, started_at order by event))), 32) as event_id
        from events""")


def mapping() -> str:
    """SQL: `image_uri`, `event_id` and `frame` of every frame, in order."""
    return "select image_uri, event_id, frame::integer as frame from frames join facts using (event) order by position"


def predicted(column: str, begin: int, end: int) -> str:
    """SQL: the frames from one position to before another, with their event's facts and what the model said of them.

    A frame with crops has a row for each of them besides its own, which says nothing.
    """
    return f"""
        select facts.*, frames.image_uri, stored.{column}
        from frames join facts using (event) join stored using (filename, image_uri)
        where position >= {begin} and position < {end}
        order by position, stored.file_row_number"""
