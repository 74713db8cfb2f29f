"""Give each event its deployment in the standard's table, and its camera's offset from UTC.

Tables and views in SQL:

    assigned    the deployment of each event, or the reason why it has none
    timed       the events that have one, with `minutes`: the clock's offset from UTC
    placed      the images of these events

An event belongs to the deployment whose deploymentID it names. Where it names none, the table may describe a camera or
a place that was in use several times: then the rows whose cameraID, locationID or locationName it names count (or
locationID/cameraID, locationName/cameraID), and of these the one in whose period it lies.

An event is a start and a duration. All times in it have the offset that its start has, so that it is as long as the
camera's clock says, also over a change to or from summer time.
"""

import duckdb

from trapline.errors import UsageError

NOT_IN_TABLE = "deployment_not_in_table"
OUTSIDE = "outside_deployment"

# Days are often written without a time, and clocks are some hours wrong.
_TOLERANCE_S = 86_400

_PLACES = "[cameraID, locationID, locationName, locationID || '/' || cameraID, locationName || '/' || cameraID]"


def place(connection: duckdb.DuckDBPyConnection, deployments: str) -> list[str]:
    """Create the tables; return what there is to say about clocks.

    Args:
        connection: has `deployments`, as `deployment_table.load` creates it; `events`; and `mapping` (image_uri,
            event_id, captured_at).
        deployments: URL of the deployments table, for messages.

    Raises:
        UsageError: two deployments share a name and overlap in time.
    """
    connection.execute(f"""
        create or replace temp table periods as
        select deploymentID, zone, deploymentStart::timestamptz as starts, deploymentEnd::timestamptz as ends,
            {_PLACES} as places
        from deployments;
        create or replace temp table names as
        select distinct unnest(places) as name, deploymentID, zone, starts, ends from periods;
        delete from names where name is null or name in (select deploymentID from periods)
            or name not in (select deployment from events);
        insert into names select deploymentID, deploymentID, zone, starts, ends from periods""")
    _refuse_overlaps(connection, deployments)
    connection.execute(f"""
        create or replace temp table assigned as
        with matched as (
            select event_id, deployment, deploymentID,
                epoch(timezone(zone, started_at::timestamp)) as moment,
                greatest(epoch(starts) - moment, moment - epoch(ends), 0) as distance
            from events left join names on name = deployment
        )
        select event_id, any_value(deployment) as deployment,
            arg_min(deploymentID, distance) filter (distance <= {_TOLERANCE_S}) as deploymentID,
            case when count(deploymentID) = 0 then '{NOT_IN_TABLE}'
                 when min(distance) > {_TOLERANCE_S} then '{OUTSIDE}' end as reason
        from matched group by event_id;
        create or replace temp table clocks as
        select deploymentID, zone, skipped, case when skipped is not null then
            datediff('minute', timezone('UTC', starts), timezone(zone, starts)) end as fixed
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


def _refuse_overlaps(connection: duckdb.DuckDBPyConnection, deployments: str) -> None:
    found = connection.sql("""
        select one.name, one.deploymentID, two.deploymentID from names as one join names as two using (name)
        where one.deploymentID < two.deploymentID and one.starts < two.ends and two.starts < one.ends limit 1
    """).fetchall()
    for name, one, two in found:
        raise UsageError(
            f"{deployments}: deployments {one} and {two} are both of {name} and overlap in time, so events of {name} "
            "belong to either; correct deploymentStart or deploymentEnd"
        )
