"""What events add to a page: independent events, effort, detection histories and a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from trapline.analysis.deployments import Source
from trapline.analysis.event_dataset import EventFiles
from trapline.analysis.report import charts, detection_history, event_charts, sightings, survey_effort
from trapline.analysis.report.chart_style import Chart
from trapline.analysis.report.detection_history import History
from trapline.analysis.report.sightings import RATE, Survey
from trapline.analysis.sql import Table, ask, read_parquet


@dataclass(frozen=True)
class EventPart:
    """The events of a page.

    Attributes:
        survey: them in figures.
        history: in which weeks which camera detected what.
        unassigned: images in no event, by reason (reason, images).
        declared: whether EVENTS has a table of deployments.
        unlocated: cameras without coordinates, which the map does not show.
        charts: by name, without those that have nothing to show.
    """

    survey: Survey
    history: History
    unassigned: Table
    declared: bool
    unlocated: Table
    charts: dict[str, Chart]


def read(
    connection: duckdb.DuckDBPyConnection,
    files: EventFiles,
    sources: Sequence[Source],
    sure: float,
    apart: float,
    span: tuple[datetime | None, datetime | None] = (None, None),
) -> EventPart:
    """Read the events, make them the table `sightings`, and draw what only events have.

    Args:
        connection: has the table `images` of `image_table.py`.
        files: of the events.
        sources: by which their deployments were found.
        sure: probability that a species must reach to be counted.
        apart: minutes after which another event of a species at a camera is independent.
        span: first and last day of the archive, as in `survey_effort.read`.

    Raises:
        StorageError, TransientError: a store refuses, or does not answer.
    """
    survey_effort.read(connection, files, sources, span)
    survey = sightings.from_events(connection, sure, apart)
    history = detection_history.read(connection)
    located, unlocated = sightings.places(connection)
    rates = sightings.rates(connection)
    drawn = {}
    if rates.rows:
        drawn["by_site"] = charts.by_site(rates, RATE, 1)
    if history.cells.rows:
        drawn["history"] = event_charts.history(history)
    if located.rows:
        drawn["map"] = event_charts.station_map(located)
    unassigned = ask(
        connection,
        f"""
        select reason, count(*) as images from {read_parquet(files.unassigned)}
        group by reason order by images desc, reason""",
    )
    return EventPart(survey, history, unassigned, bool(files.deployments), unlocated, drawn)
