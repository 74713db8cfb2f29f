"""Order the images of each camera in time and cut them into events, in DuckDB.

An event goes on across shards, folders and midnight. These are the tables in SQL:

    stored     the rows of result files, without those of the frames of clips, with `filename` and `file_row_number`
    located    the rows of images and clips (without those of crops) with `deployment`, `camera`, the corrected
               `captured_at`, and `reason`: why an image cannot be in an event, or null
    frames     the images of one deployment, in order
    facts      its events

Images of the same moment stay in the order of their files, and of the rows in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from trapline.analysis import dataset, deployments
from trapline.analysis.deployment_periods import NOT_IN_TABLE, OUTSIDE, Periods
from trapline.analysis.deployments import Source
from trapline.analysis.events.corrections import Correction, correction_ms
from trapline.analysis.sql import literal
from trapline.analysis.time_zones import duckdb_name
from trapline.results.schema import NOT_ANIMALS

NO_TIME = "no_time"
IMPLAUSIBLE_TIME = "implausible_time"
NO_DEPLOYMENT = "no_deployment"

# Clocks that have lost their power start again in 1970, 1980 or 2000; digital camera traps came later.
EARLIEST = datetime(2001, 1, 1)


@dataclass(frozen=True)
class Gap:
    """Where one event ends and the next begins.

    Attributes:
        seconds: longest time between two consecutive images of one event.
        max_frames: most images in an event; further ones are the next event. None: no limit.
    """

    seconds: float = 60.0
    max_frames: int | None = None


@dataclass(frozen=True)
class Placing:
    """How an image is given its deployment and its time.

    Attributes:
        sources: where deployments are looked up.
        latest: no image can be later: a clock that says so is wrong.
        corrections: of clocks that were wrong; the first that applies to an image is used.
        periods: in which a name stands for a deployment; None: names are those of deployments at any time.
        timezone: of the cameras' clocks, in which times that say their offset from UTC are put; None: as they are.
    """

    sources: tuple[Source, ...]
    latest: datetime
    corrections: tuple[Correction, ...] = ()
    periods: Periods | None = None
    timezone: str | None = None


def read(connection: duckdb.DuckDBPyConnection, urls: Sequence[str], placing: Placing) -> None:
    """Create the views `stored` and `located` over these result files; nothing is read yet."""
    connection.execute(f"create or replace temp view stored as from {dataset.without_frames(connection, urls)}")
    present = connection.sql("from stored limit 0").columns
    own = "crop is null" if "crop" in present else "true"
    seconds = "coalesce(duration_seconds, 0)" if "duration_seconds" in present else "0"
    clock = _on_the_clock(placing.timezone) if "captured_at_offset" in present else "captured_at"
    connection.execute(f"""
        create or replace temp view located as
        with placed as (
            select * replace ({clock} as captured_at), {deployments.located(placing.sources)},
                to_milliseconds(round({seconds} * 1000)::bigint) as lasts
            from stored where {own}
        ), corrected as (
            select * replace ((captured_at + to_milliseconds(clock_correction_ms))::timestamp_ms as captured_at)
            from (select *, {correction_ms(placing.corrections)} as clock_correction_ms from placed)
        ), dated as ({_dated(connection, placing)})
        select *, nullif(concat_ws(', ',
            case when captured_at is null then '{NO_TIME}' end,
            case when not plausible then '{IMPLAUSIBLE_TIME}' end,
            case when deployment is null then '{NO_DEPLOYMENT}' else unlisted end), '') as reason
        from dated""")


def _on_the_clock(timezone: str | None) -> str:
    """Return SQL for `captured_at` on the camera's clock: a clip says its time in UTC, or with an offset of its own."""
    if not timezone:
        return "captured_at"
    moment = "try_cast(captured_at::varchar || captured_at_offset as timestamptz)"
    return f"coalesce(timezone({literal(duckdb_name(timezone))}, {moment})::timestamp_ms, captured_at)"


def _dated(connection: duckdb.DuckDBPyConnection, placing: Placing) -> str:
    """Return SQL that gives each image the deployment of its time, or says in `unlisted` why there is none."""
    plausible = f"captured_at between {_moment(EARLIEST)} and {_moment(placing.latest)} as plausible"
    if placing.periods is None:
        return f"select *, {plausible}, null::varchar as unlisted from corrected"
    placing.periods.define(connection)
    return f"""
        select corrected.* replace (
                case when captured_at <= last then periods.deployment else corrected.deployment end as deployment),
            {plausible},
            case when corrected.deployment not in (select name from periods) then '{NOT_IN_TABLE}'
                 when plausible and (last is null or captured_at > last) then '{OUTSIDE}' end as unlisted
        from corrected asof left join periods on corrected.deployment = periods.name and captured_at >= first"""


def split(connection: duckdb.DuckDBPyConnection, deployment: str, gap: Gap) -> None:
    """Create `frames`, the images of a deployment by camera and time, and `facts`, what is known of each event.

    A clip is one frame. The gap to what follows it begins where it ends, and its event does not end before.

    `frames` has `position` (1, 2 …), `event` (the position of its first frame) and `frame` (1, 2 … in it). An
    `event_id` is a digest of deployment, camera, start and, where `max_frames` lets several events start at one moment,
    which of them it is: it does not depend on other events.
    """
    # A gap ends a session, a count may end an event within it: both are identified by their first position.
    first = f"begin + (position - begin) // {gap.max_frames} * {gap.max_frames}" if gap.max_frames else "begin"
    connection.execute(f"""
        create or replace temp table frames as
        with clock as (
            select image_uri, status, camera, captured_at, captured_at + lasts as ended_at, clock_correction_ms,
                filename, file_row_number, row_number() over clock as position,
                coalesce(captured_at - max(captured_at + lasts) over (
                    partition by camera order by captured_at, filename, file_row_number
                    rows between unbounded preceding and 1 preceding
                ) <= to_milliseconds({round(gap.seconds * 1000)}), false) as goes_on
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
                min(captured_at) as started_at, max(ended_at)::timestamp_ms as ended_at,
                bool_or(clock_correction_ms <> 0) as clock_corrected, count(*)::integer as frames,
                (count(*) filter (status = 'ok'))::integer as ok,
                (count(*) filter (status = 'salvaged'))::integer as salvaged,
                (count(*) filter (status = 'failed'))::integer as failed
            from frames group by event
        )
        select *, left(sha256(concat_ws(chr(10), deployment, camera, epoch_ms(started_at),
            row_number() over (partition by camera, started_at order by event))), 32) as event_id
        from events""")


def mapping() -> str:
    """Return SQL for the rows of the table `images`, in order."""
    return """
        select image_uri, deployment, facts.camera, captured_at, event_id, frame::integer as frame
        from frames join facts using (event) order by position"""


def predicted(column: str, begin: int, end: int, crops: bool = False) -> str:
    """Return SQL for the frames from one position to before another, with their event's facts and their predictions.

    A frame with crops has a row for each of them besides its own, which has no prediction; nor has, here, that of a
    person or a vehicle.

    Args:
        column: of the predictions.
        begin: the first position.
        end: the position after the last.
        crops: whether there are rows of crops.
    """
    value = f"case when detection_category not in {NOT_ANIMALS} or crop is null then stored.{column} end"
    return f"""
        select facts.*, frames.image_uri, {value if crops else f"stored.{column}"} as {column}
        from frames join facts using (event) join stored using (filename, image_uri)
        where position >= {begin} and position < {end}
        order by position, stored.file_row_number"""


def _moment(moment: datetime) -> str:
    return f"timestamp '{moment:%Y-%m-%d %H:%M:%S}'"
