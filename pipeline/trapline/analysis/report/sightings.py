"""The table `sightings`, which says what was seen where and when: independent events, or images where there are none.

Its columns: label, unit (a camera in one deployment), site, moment (by the camera's clock) and probability. Queries
count its rows.
"""

from dataclasses import dataclass
from datetime import datetime

import duckdb

from trapline.analysis.report.queries import MOST_MARKS, Headline
from trapline.analysis.sql import MOST_ROWS, Table, ask

# A chart of more bars than this goes from days to weeks, from weeks to months.
_MOST_BARS = 64
# The name of a column.
RATE = "events per 100 camera-days"
# Species in the table at the top, and sites of each.
_MOST_SPECIES, _SITES = 40, 2


@dataclass(frozen=True)
class Survey:
    """The events in figures.

    Attributes:
        events: all that are in EVENTS.
        named: those with a species that was probable enough.
        independent: what is left where those of one species that follow each other too soon are one.
        units: cameras, each counted once for each of its deployments.
        declared: of these, those whose start and end the deployments say.
        unknown: those of which nothing says how long they stood there.
        days: of all cameras together.
        located: cameras with coordinates.
    """

    events: int
    named: int
    independent: int
    units: int
    declared: int
    unknown: int
    days: float
    located: int


def from_images(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the table from the named images of `images`."""
    connection.execute("""
        create or replace temp table sightings as
        select label, camera as unit, coalesce(site, '(none said)') as site, captured_at::timestamp as moment,
            probability
        from images where named""")


def from_events(connection: duckdb.DuckDBPyConnection, sure: float, minutes: float) -> Survey:
    """Create the table from the tables of `survey_effort.py`, and return what they say in figures.

    Args:
        connection: has them.
        sure: probability that the species of an event must reach.
        minutes: events of one species at one camera are one until none has begun for so long since the last one ended.
    """
    connection.execute(
        """
        create or replace temp table sightings as
        with marked as (
            select *, coalesce(started_at - max(ended_at) over (before rows between unbounded preceding and 1 preceding)
                    >= to_milliseconds($apart), true) as begins
            from events where label is not null and probability >= $sure and in_span
            window before as (partition by unit, label order by started_at, ended_at, event_id)
        ), numbered as (
            select *, sum(begins::int) over (
                partition by unit, label order by started_at, ended_at, event_id rows unbounded preceding) as number
            from marked
        )
        select label, unit, any_value(site) as site, min(started_at) as moment, max(probability) as probability
        from numbered join units using (unit) group by label, unit, number""",
        {"sure": sure, "apart": round(minutes * 60_000)},
    )
    found = connection.execute(
        """
        select (select count(*) from events),
            (select count(*) from events where label is not null and probability >= $sure),
            (select count(*) from sightings),
            count(*), count(*) filter (declared), count(*) filter (days is null), coalesce(sum(days), 0),
            count(*) filter (latitude is not null and longitude is not null)
        from units""",
        {"sure": sure},
    ).fetchall()
    return Survey(*found[0])


def species(connection: duckdb.DuckDBPyConnection, survey: Survey | None, head: Headline) -> Table:
    """Return one row per label, the most often seen first.

    Its columns: label, count, rate (per 100 camera-days; null without a survey), units (with the label), of_units (all
    cameras), sites (those where it was seen most, as a list of {site, count}), more_sites (how many others), hours (24
    counts, by the cameras' clocks), median_probability, first, last (days).
    """
    return ask(
        connection,
        """
        with by_site as (
            select label, site, count(*) as count,
                row_number() over (partition by label order by count(*) desc, site) as place
            from sightings group by label, site
        ), sites as (
            select label, list({site: site, count: count} order by place) filter (place <= $sites) as sites,
                greatest(count(*) - $sites, 0) as more_sites
            from by_site group by label
        ), by_hour as (
            select label, hour, count(moment) filter (hour(moment) = hour) as count
            from sightings, range(24) as hours(hour) group by label, hour
        ), hours as (select label, list(count order by hour) as hours from by_hour group by label)
        select label, count(*) as count, case when $days > 0 then 100 * count(*) / $days end as rate,
            count(distinct unit) as units, $units::bigint as of_units, any_value(sites) as sites,
            any_value(more_sites) as more_sites, any_value(hours) as hours,
            median(probability) as median_probability, min(moment)::date as first, max(moment)::date as last
        from sightings join sites using (label) join hours using (label)
        group by label order by count desc, label""",
        at_most=_MOST_SPECIES,
        sites=_SITES,
        days=survey.days if survey else 0,
        units=survey.units if survey else head.cameras,
    )


def by_site(connection: duckdb.DuckDBPyConnection, what: str) -> Table:
    """Return label, site and the count, whose column is called `what` (images or events)."""
    return ask(
        connection,
        f"select label, site, count(*) as {what} from sightings group by all order by {what} desc, label, site",
    )


def rates(connection: duckdb.DuckDBPyConnection) -> Table:
    """Return label, site, events, camera_days of the site, and events per 100 of these."""
    return ask(
        connection,
        f"""
        with effort as (select site, sum(days) as days from units group by site)
        select label, site, count(*) as events, round(any_value(days), 1) as "camera-days",
            round(100 * count(*) / any_value(days), 2) as "{RATE}"
        from sightings join effort using (site) where days > 0
        group by label, site order by events desc, label, site""",
    )


def places(connection: duckdb.DuckDBPyConnection) -> tuple[Table, Table]:
    """Return cameras with coordinates (camera, latitude, longitude, events, camera-days), and those without."""
    located = ask(
        connection,
        """
        select unit as camera, latitude, longitude, count(moment) as events, round(days, 1) as "camera-days"
        from units left join sightings using (unit) where latitude is not null and longitude is not null
        group by all order by events desc, camera""",
    )
    return located, ask(
        connection,
        "select unit as camera from units where latitude is null or longitude is null order by camera",
    )


def by_hour(connection: duckdb.DuckDBPyConnection, what: str) -> Table:
    """Return label, hour (0 to 23, by the cameras' clocks) and the count, of sightings with a time."""
    return ask(
        connection,
        f"""
        with busiest as (select label from sightings where moment is not null
                         group by label order by count(*) desc, label limit $most)
        select label, hour(moment) as hour, count(*) as {what}
        from sightings semi join busiest using (label)
        where moment is not null group by all order by label, hour""",
        most=MOST_ROWS // 24,
    )


def timeline(
    connection: duckdb.DuckDBPyConnection, first: datetime | None, last: datetime | None, what: str
) -> tuple[str, Table]:
    """Return what a bar stands for (day, week or month), and start, label and the count: from one day to another."""
    days = (last - first).days + 1 if first and last else 0
    unit = next((unit for unit, length in (("day", 1), ("week", 7)) if days / length <= _MOST_BARS), "month")
    return unit, ask(
        connection,
        f"""
        with common as (select label from sightings group by label order by count(*) desc, label limit 7)
        select date_trunc('{unit}', moment)::date as start,
            case when label in (from common) then label else 'others' end as label, count(*) as {what}
        from sightings where moment::date between $first and $last
        group by all order by start, label""",
        at_most=MOST_MARKS,
        first=first,
        last=last,
    )
