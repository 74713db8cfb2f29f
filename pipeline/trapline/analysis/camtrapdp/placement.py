"""Give each event its deployment in the standard's table, and its camera's offset from UTC.

Tables and views in SQL:

    assigned    the deployment of each event, or the reason why it has none
    timed       the events that have one, with `minutes`: the clock's offset from UTC
    placed      the images of these events

An event belongs to the deployment whose deploymentID it names. If it names none, the table may describe a camera or a
place that was in use several times: then it belongs to the row whose cameraID, locationID or locationName (or
locationID/cameraID, locationName/cameraID) it names, and in whose period it lies; between two periods of a camera, to
none.

An event has a start and a duration. All times in it have the offset of its start, so that it is as long as the camera's
clock says, even across a change to or from summer time.
"""

from collections import Counter

import duckdb
import pyarrow as pa

from trapline.analysis import deployment_periods
from trapline.analysis.deployment_periods import NOT_IN_TABLE, OUTSIDE

# Days are often written without a time, and clocks are some hours wrong.
_TOLERANCE_S = 86_400


def place(connection: duckdb.DuckDBPyConnection, deployments: str) -> list[str]:
    """Create the tables; return warnings about clocks.

    Args:
        connection: has `deployments`, as `deployment_table.load` creates it; `events`; and `mapping` (image_uri,
            event_id, captured_at).
        deployments: URL of the deployments table, for messages.

    Raises:
        UsageError: a deploymentID is repeated, or two deployments share a name and overlap in time.
    """
    _define_names(connection, deployments)
    connection.execute(f"""
        create or replace temp table assigned as
        with matched as (
            select event_id, deployment, names.*, epoch(timezone(zone, started_at::timestamp)) as moment,
                moment between starts and last as inside,
                single and moment between starts - {_TOLERANCE_S} and last + {_TOLERANCE_S} as near
            from events left join names on name = deployment
        )
        select event_id, any_value(deployment) as deployment,
            coalesce(arg_max(deploymentID, starts) filter (inside), any_value(deploymentID) filter (near))
                as deploymentID,
            case when count(name) = 0 then '{NOT_IN_TABLE}' when not bool_or(inside or near) then '{OUTSIDE}' end
                as reason
        from matched group by event_id;
        create or replace temp table clocks as
        select deploymentID, zone, skipped, case when skipped is not null then
            datediff('minute', timezone('UTC', start), timezone(zone, start)) end as fixed
        from periods left join (
            select deploymentID, min(captured_at) filter (is_skipped(captured_at::timestamp, zone)) as skipped
            from mapping join assigned using (event_id) join periods using (deploymentID) group by deploymentID
        ) using (deploymentID);
        create or replace temp table timed as
        select event_id, deploymentID, started_at, ended_at,
            coalesce(fixed, offset_at(started_at::timestamp, zone)) as minutes
        from events join assigned using (event_id) join clocks using (deploymentID);
        create or replace temp view placed as
        select image_uri, event_id, deploymentID, captured_at, minutes from mapping join timed using (event_id)""")
    skipped = connection.sql("""
        select deploymentID, strftime(skipped, '%Y-%m-%d %H:%M:%S'), zone, offset_text(fixed) from clocks
        where skipped is not null order by deploymentID""").fetchall()
    return [
        f"deployment {deployment}: its clock shows {time}, a time that {zone} skips, so it does not follow that zone; "
        f"all its times are written with {offset}, the offset at its start, unless its column timezone gives another"
        for deployment, time, zone, offset in skipped
    ]


def _define_names(connection: duckdb.DuckDBPyConnection, deployments: str) -> None:
    """Create `periods`, a row per deployment, and `names`, one per deployment and name; times are seconds since 1970.

    `last` ends a period in which an event may begin, and `single` says that a name is that of one row only.
    """
    connection.execute("""
        create or replace temp table periods as
        select deploymentID, cameraID, locationID, locationName, zone, deploymentStart::timestamptz as start,
            epoch(start) as starts, epoch(written_end::timestamptz) as ends,
            epoch(deploymentEnd::timestamptz) + case when whole_day then 0.999 else 0 end as last
        from deployments""")
    periods = connection.sql("select * exclude (start) from periods").to_arrow_table().to_pylist()
    used = {name for (name,) in connection.sql("select distinct deployment from events").fetchall()}
    rows = deployment_periods.by_name(periods, used, deployments)
    counts = Counter(row["name"] for row in rows)
    plain = [{**row, "single": counts[row["name"]] == 1} for row in rows]
    fields = [
        *((name, pa.string()) for name in ("name", "deploymentID", "zone")),
        *((name, pa.float64()) for name in ("starts", "last")),
        ("single", pa.bool_()),
    ]
    connection.register("names", pa.Table.from_pylist(plain, pa.schema(fields)))
