"""In which weeks each camera stood there, and in which of these it saw a species: what occupancy models start from."""

from dataclasses import dataclass

import duckdb

from trapline.analysis.sql import MOST_ROWS, Table, ask

# Of a chart: cells that can be told apart on a page. A longer survey is shown by months.
_MOST_WEEKS = 60
MOST_UNITS, MOST_SPECIES = 24, 6


@dataclass(frozen=True)
class History:
    """What the charts of the detection history show.

    Attributes:
        unit: what a column stands for: week or month.
        units: the cameras with most events, by name.
        cells: label, camera, week (or month), events; a row for each label and camera's week that was sampled.
        left_out: cameras that the charts do not show, and their events.
        species: labels that were detected, in all.
    """

    unit: str
    units: tuple[str, ...]
    cells: Table
    left_out: Table
    species: int


def read(connection: duckdb.DuckDBPyConnection) -> History:
    """Return the history of the most common labels at the cameras with most events.

    Args:
        connection: has the tables of `survey_effort.py` and `sightings`.
    """
    ((weeks, labels),) = connection.execute("""
        select coalesce((select datediff('week', min(starts), max(ends)) + 1 from units), 0),
            (select count(distinct label) from sightings)""").fetchall()
    unit = "week" if weeks <= _MOST_WEEKS else "month"
    connection.execute(f"""
        create or replace temp table shown_units as
        with counted as (select unit, count(*) as events from sightings group by unit)
        select unit, coalesce(events, 0) as events from units left join counted using (unit)
        where starts is not null and ends is not null
        order by events desc, unit limit {MOST_UNITS}""")
    cells = ask(
        connection,
        f"""
        with shown as (
            select label from sightings group by label order by count(*) desc, label limit {MOST_SPECIES}
        ), sampled as (
            -- The last day of a period ends at midnight, which is not sampled any more.
            select unit, unnest(generate_series(date_trunc('{unit}', starts),
                greatest(starts, ends - interval 1 second), interval 1 {unit}))::date as start
            from units semi join shown_units using (unit)
        ), detected as (
            select label, unit, date_trunc('{unit}', moment)::date as start, count(*) as events
            from sightings semi join shown_units using (unit) semi join shown using (label)
            -- A clock that says another year would stretch the chart to it.
            where moment between (select date_trunc('{unit}', min(starts)) from units) and (select max(ends) from units)
            group by all
        )
        select label, unit as camera, start as {unit}, coalesce(events, 0) as events
        from (from shown, sampled) full join detected using (label, unit, start)
        order by label, camera, start""",
        at_most=MOST_SPECIES * MOST_UNITS * 2 * _MOST_WEEKS,
    )
    left_out = ask(
        connection,
        """
        select unit, count(moment) as events from units left join sightings using (unit)
        where unit not in (select unit from shown_units) group by unit order by events desc, unit""",
        at_most=MOST_ROWS,
    )
    units = connection.sql("from (select unit from shown_units) order by unit").fetchall()
    return History(unit, tuple(name for (name,) in units), cells, left_out, labels)
