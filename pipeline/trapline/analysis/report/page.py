"""Build the report: one HTML page of tables, charts and pictures, which needs neither scripts nor a network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trapline import __version__
from trapline.analysis import deployments, event_dataset, sql
from trapline.analysis.dataset import Results
from trapline.analysis.event_dataset import EventFiles
from trapline.analysis.report import (
    camera_health,
    charts,
    clip_frames,
    detection_history,
    event_part,
    image_table,
    queries,
    run_history,
    sightings,
    thumbnails,
)
from trapline.analysis.report.camera_health import Finding
from trapline.analysis.report.chart_style import Chart
from trapline.analysis.report.event_part import EventPart
from trapline.analysis.report.queries import Headline
from trapline.analysis.report.sightings import Survey
from trapline.analysis.report.thumbnails import Picture, Thumbnail
from trapline.analysis.sql import Table
from trapline.errors import UsageError

# Pictures of each kind that are shown.
_SHOWN = 8
_LOWEST_ENERGY = 6
# Cameras in the calendar; those that were found come first.
_CAMERAS, _DAYS = 24, 60


@dataclass(frozen=True)
class Options:
    """The options of a report.

    Attributes:
        deployment_from: sources of site and camera, as in `deployments.py`; none: the folders below the archive.
        pictures: most pictures that are fetched from the shards, to show them or to see whether a camera is dark.
        sure: probability that a label must reach to be counted.
        silent_after: days without an image before the archive's end.
        new_within: days before the archive's end in which a species is new.
        events: folder of the events of these results; None: images are counted.
        apart: minutes after which another event of a species at a camera is independent.
    """

    deployment_from: Sequence[str] = ()
    pictures: int = 150
    sure: float = 0.5
    silent_after: int = 3
    new_within: int = 7
    events: str | None = None
    apart: float = 30


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        html: the page.
        headline: the figures at its top.
        survey: the events in figures; None without events.
        findings: cameras that a person should look at.
        shown, missing: pictures that were fetched, and those that could not be read.
    """

    html: str
    headline: Headline
    survey: Survey | None
    findings: list[Finding]
    shown: int
    missing: int


@dataclass(frozen=True)
class _Shot:
    """A picture, its row and its thumbnail."""

    row: dict[str, Any]
    picture: Picture
    thumbnail: Thumbnail


def build(found: Results, options: Options, say: Callable[[str], None] = lambda _: None) -> Page:
    """Build the report on some results.

    Args:
        found: what `classify` or `rescore` wrote.
        options: of the report.
        say: called with what is being done.

    Raises:
        UsageError: the results hold no image, or a source of deployments is none; the events are not those of the
            results.
        StorageError, TransientError: the store of the results refuses, or does not answer.
    """
    files = _events(found, options)
    places = files.deployment_from if files else tuple(options.deployment_from)
    sources = [deployments.parse(text) for text in places]
    connection = sql.connect()
    with sql.translated(found.output):
        say("reading the results")
        corrected = files.images if files and files.corrects_clocks else ()
        image_table.read(connection, found, sources, options.sure, corrected)
        head = queries.headline(connection, found)
        events: EventPart | None = None
        if files:
            say("reading the events")
            events = event_part.read(connection, files, sources, options.sure, options.apart, (head.first, head.last))
        else:
            sightings.from_images(connection)
        survey = events.survey if events else None
        say("looking at cameras")
        findings = camera_health.failing(connection) + camera_health.silent(connection, head, options.silent_after)
        displaced, judged = _displaced(connection, found)
        wanted = {
            "best": queries.best(connection, _SHOWN),
            "doubtful": queries.doubtful(connection, _SHOWN),
            "lowest_energy": queries.lowest_energy(connection, _LOWEST_ENERGY),
        }
        rows = {kind: table.records() for kind, table in wanted.items()}
        frames = clip_frames.best(connection, found, [row for some in rows.values() for row in some if row["is_clip"]])
        places_of = {kind: [_picture(row, frames) for row in some] for kind, some in rows.items()}
        first = list(dict.fromkeys(picture for some in places_of.values() for picture in some))[: options.pictures]
        looked_at = camera_health.looks(connection, options.pictures - len(first))
    say("fetching pictures")
    others = [picture for halves in looked_at.values() for half in halves for picture in half]
    fetched = thumbnails.fetch([*first, *others], thumbnails.known_shards(found), found.computed.get("image_column"))
    not_asked = Thumbnail(problem="not fetched; --pictures allows no more")
    dark, seen = camera_health.dark(looked_at, fetched)
    findings += dark + displaced
    with sql.translated(found.output):
        say("drawing")
        nights = run_history.table(found.output)
        cameras = _calendar(connection, head, findings)
        context = {
            "found": found,
            "options": options,
            "head": head,
            "findings": findings,
            "rules": {name: text.format(**vars(options)) for name, text in camera_health.RULES.items()},
            "judged": {"dark": seen, "displaced": judged},
            "new": camera_health.new_species(connection, head, options.new_within),
            "runs": nights,
            "failures": queries.failures(connection),
            "shots": {
                kind: [
                    _Shot(row, picture, fetched.get(picture, not_asked))
                    for row, picture in zip(rows[kind], places_of[kind], strict=True)
                ]
                for kind in rows
            },
            "places": places,
            "events": events,
            "survey": survey,
            "most_species": detection_history.MOST_SPECIES,
            "species": sightings.species(connection, survey, head),
            "charts": _charts(connection, head, cameras, nights, events),
            "left_out": queries.cameras_without_images(connection, head, cameras, _DAYS),
            "now": datetime.now(UTC),
            "version": __version__,
            "isolated": queries.ISOLATED_CAMERA_DAYS,
            "season": queries.SEASON_DISTANCE_DAYS,
            "tail": queries.TAIL,
            "most_rows": sql.MOST_ROWS,
        }
    missing = sum(not thumbnail.data_uri for thumbnail in fetched.values())
    return Page(_template().render(context), head, survey, findings, len(fetched) - missing, missing)


def _events(found: Results, options: Options) -> EventFiles | None:
    """Return the files of the events that the options name."""
    if not options.events:
        return None
    files = event_dataset.find(options.events, found)
    if options.deployment_from and tuple(options.deployment_from) != files.deployment_from:
        raise UsageError(
            f"--deployment-from: {options.events} was made with {', '.join(files.deployment_from)}; leave it out, or "
            "run `trapline events` with the other one"
        )
    return files


def _displaced(connection: duckdb.DuckDBPyConnection, found: Results) -> tuple[list[Finding], int]:
    urls = [file.url for file in found.files]
    if "embedding" not in connection.sql(f"from {sql.read_parquet(urls[:1])} limit 0").columns:
        return [], 0
    return camera_health.displaced(connection, urls)


def _charts(
    connection: duckdb.DuckDBPyConnection,
    head: Headline,
    cameras: Sequence[str],
    nights: Table,
    events: EventPart | None,
) -> dict[str, Chart]:
    """Return the charts by name, without those that have nothing to show."""
    what = "events" if events else "images"
    unit, timeline = sightings.timeline(connection, head.first, head.last, what)
    threshold, energies = queries.energies(connection)
    tables: dict[str, tuple[Table, Callable[[Table], Chart]]] = {
        "by_site": (sightings.by_site(connection, what), lambda table: charts.by_site(table, what)),
        "by_hour": (sightings.by_hour(connection, what), lambda table: charts.by_hour(table, what)),
        "timeline": (timeline, lambda table: charts.timeline(unit, table, what)),
        "presence": (
            queries.daily(connection, head, cameras, _DAYS),
            lambda table: charts.presence(table, cameras),
        ),
        "energies": (energies, lambda table: charts.energies(threshold or 0, table)),
        "failures": (queries.failures_by_camera(connection), charts.failures),
        "speeds": (_at_work(nights), charts.speeds),
    }
    drawn = {name: draw(table) for name, (table, draw) in tables.items() if table.rows}
    return drawn | (events.charts if events else {})


def _calendar(connection: duckdb.DuckDBPyConnection, head: Headline, findings: Sequence[Finding]) -> list[str]:
    """Return the cameras of the calendar: those with findings, then those with the most images."""
    most = sql.ask(
        connection,
        "select camera from images where camera is not null group by camera order by count(*) desc, camera limit $most",
        most=_CAMERAS,
    )
    named = dict.fromkeys([*(finding.camera for finding in findings), *(camera for (camera,) in most.rows)])
    return list(named)[:_CAMERAS]


def _at_work(nights: Table) -> Table:
    """Return the runs that classified images, if there are at least two."""
    rows = [row for row in nights.rows if row[nights.names.index("images/s")]]
    return Table(nights.names, rows if len(rows) > 1 else [])


def _picture(row: dict[str, Any], frames: Mapping[str, float]) -> Picture:
    seconds = frames.get(row["image_uri"], 0.0) if row["is_clip"] else None
    return Picture(row["shard"], row["key"], row["content_sha256"], seconds)


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("trapline.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # SVG is the only markup that does not stand in the template itself; what draws it escapes the names in it.
    environment.filters |= {
        "cell": _cell,
        "clock": _clock,
        "day": _day,
        "short": _short,
        "whole": "{:,.0f}".format,
        "svg": Markup,
        "zip": zip,
    }
    return environment.get_template("page.html")


def _cell(value: Any) -> str:
    """Return a value formatted for reading."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return str(value)


def _clock(seconds: float) -> str:
    """Return the place in a clip as players show it, with tenths where there are any."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes}:{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")


def _day(value: date | None) -> str:
    return f"{value.day} {value:%B %Y}" if value else "–"


def _short(value: date | None) -> str:
    return f"{value.day}\N{NO-BREAK SPACE}{value:%b}\N{NO-BREAK SPACE}{value.year}" if value else "–"
