"""Images become frames of events, in DuckDB: one camera, no longer gap than allowed, across shards, folders, midnight.

Two tables of SQL: `located` has the rows of results, with `filename`, `file_row_number`, `deployment`, `camera` and the
reason for which an image cannot be in an event; `frames` has the images of one deployment, each with its event.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from pipeline import deployments
from pipeline.deployments import Source, literal

NO_TIME = "no_time"
NO_DEPLOYMENT = "no_deployment"

# Images of one moment stay in the order of their files, and of the rows in them.
_CLOCK = "captured_at, filename, file_row_number"


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
    """Makes `located` a view of these result files; reads nothing yet."""
    files = ", ".join(map(literal, urls))
    connection.execute(f"""
        create or replace temp view located as
        select *, nullif(concat_ws(', ',
            case when captured_at is null then '{NO_TIME}' end,
            case when deployment is null then '{NO_DEPLOYMENT}' end), '') as reason
        from (
            select *, {deployments.located(sources)}
            from read_parquet([{files}], hive_partitioning = false, filename = true, file_row_number = true)
        )""")


def split(connection: duckdb.DuckDBPyConnection, deployment: str, gap: Gap) -> None:
    """Makes `frames` the images of a deployment, with `event` (1, 2 … by start, then camera), `event_id` and `frame`.

    An `event_id` is a digest of
    deployment, camera, start and, where `max_frames` lets several events start at one moment, which of them it is: it
    does not depend on what else there is.
    """
    part = f"(row_number() over (partition by camera, session order by {_CLOCK}) - 1) // {gap.max_frames}"
    connection.execute(f"""
        create or replace temp table frames as
        with clock as (
            select image_uri, status, deployment, camera, captured_at, filename, file_row_number,
                captured_at - lag(captured_at) over (partition by camera order by {_CLOCK})
                    > to_milliseconds({round(gap.seconds * 1000)}) as late
            from located where reason is null and deployment = {literal(deployment)}
        ), sessions as (
            select *, count(*) filter (late) over (partition by camera order by {_CLOCK} rows unbounded preceding)
                as session
            from clock
        ), parts as (
            select *, {part if gap.max_frames else 0} as part from sessions
        ), events as (
            select *, min(captured_at) over event as started_at, max(captured_at) over event as ended_at,
                count(*) over event as frames,
                count(*) filter (status = 'ok') over event as ok,
                count(*) filter (status = 'salvaged') over event as salvaged,
                count(*) filter (status = 'failed') over event as failed,
                row_number() over (event order by {_CLOCK}) as frame
            from parts window event as (partition by camera, session, part)
        ), numbered as (
            select *, dense_rank() over (order by started_at, camera, session, part) as event,
                dense_rank() over (partition by camera, started_at order by session, part) as of_this_start
            from events
        )
        select * exclude (session, part, late, of_this_start),
            left(sha256(concat_ws(chr(10), deployment, camera, epoch_ms(started_at), of_this_start)), 32) as event_id
        from numbered""")


def predicted(column: str) -> str:
    """SQL: the frames in order, each with the facts of its event and with what the model said of it in `column`."""
    return f"""
        select frames.event, event_id, frames.deployment, frames.camera, started_at, ended_at,
            frames.frames::integer as frames, ok::integer as ok, salvaged::integer as salvaged,
            failed::integer as failed, frames.image_uri, located.{column}
        from frames join located using (filename, file_row_number)
        order by event, frame"""
