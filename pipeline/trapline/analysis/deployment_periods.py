"""Which deployment a camera or a place belonged to at which time, from a user's CSV.

    deploymentID     the deployment's name
    cameraID, locationID, locationName
                     other names for it; where a camera was moved, several rows name it
    deploymentStart, deploymentEnd
                     its period on the camera's clock; empty: no limit; an end without a time includes its day
    latitude, longitude
    timezone         of the camera's clock, for times with an offset from UTC

The columns are those of Camtrap DP. An image belongs to the row that has its name and in whose period it lies, if there
is one.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import csv_input
from trapline.analysis.spelling import respelled
from trapline.analysis.time_zones import CameraClocks
from trapline.errors import UsageError

# Why an image belongs to no deployment of the table.
NOT_IN_TABLE = "deployment_not_in_table"
OUTSIDE = "outside_deployment"

_TEXTS = ("cameraID", "locationID", "locationName", "deploymentStart", "deploymentEnd", "latitude", "longitude")
_BOUNDS = {"latitude": 90.0, "longitude": 180.0}

# `float` takes `5_2`, too.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)

_EARLY, _LATE = datetime(1, 1, 1), datetime(9999, 12, 31)

MOMENT = pa.timestamp("ms")
# The table that `trapline events` keeps of the rows that it used.
SCHEMA = pa.schema(
    [
        ("deployment", pa.string()),
        ("location", pa.string()),
        ("camera", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("started_at", MOMENT),
        ("ended_at", MOMENT),
    ]
)


@dataclass(frozen=True)
class Period:
    """A period in which a name stands for a deployment.

    Attributes:
        name: of a camera or place, or the deployment's own.
        deployment: the deploymentID.
        first, last: the period, on the camera's clock, both included; the next period of the name ends it, too.
    """

    name: str
    deployment: str
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Periods:
    """A table of deployments.

    Attributes:
        rows: a period for each name of each deployment, of the names that images have.
        deployments: the table itself, of `SCHEMA`.
    """

    rows: tuple[Period, ...]
    deployments: pa.Table

    def define(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Create the relation `periods`: name, deployment, first and last; of a period without limit they are far."""
        connection.register("periods", self._table)

    @cached_property
    def _table(self) -> pa.Table:  # is asked for again for each deployment, and takes 0.3 s for 100,000 rows
        fields = [("name", pa.string()), ("deployment", pa.string()), ("first", MOMENT), ("last", MOMENT)]
        return pa.Table.from_pylist([asdict(row) for row in self.rows], pa.schema(fields))


def read(url: str, timezone: str | None, connection: duckdb.DuckDBPyConnection) -> Periods:
    """Read a CSV of deployments.

    Args:
        url: of the file.
        timezone: of the cameras' clocks, where the table has no column for it; needed for times in UTC only.
        connection: has the view `located`, made without periods, whose names of deployments are looked up.

    Raises:
        UsageError: the file is no such table, a cell of it is wrong, no image has a name of it, or two rows of one name
            overlap in time.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["deploymentID"], [*_TEXTS, "timezone"])
    rows = []
    clocks = CameraClocks(connection)
    for position, row in enumerate(table.to_pylist()):
        try:
            rows.append(_row(row, timezone, clocks))
        except ValueError as error:
            raise UsageError(f"{url}: line {csv_input.line(table, position)}: {error}") from error
    used = {name for (name,) in connection.sql("select distinct deployment from located").fetchall() if name}
    named = by_name(rows, used, url)
    if used and not used & {row["name"] for row in named}:
        raise UsageError(
            f"{url}: no deploymentID, cameraID, locationID or locationName is a deployment of the images; they have "
            f"names such as {min(used)}, the table such as {min(row['deploymentID'] for row in rows)}"
        )
    periods = [Period(row["name"], row["deploymentID"], row["starts"], row["last"]) for row in named]
    return Periods(tuple(periods), _kept(rows))


def by_name(rows: Sequence[dict[str, Any]], used: Collection[str], url: str) -> list[dict[str, Any]]:
    """Return the rows of a table of deployments by each name that they have and that is used, as `name`.

    A name that is a deploymentID stands for that deployment only. Names are spelled as they are used.

    Args:
        rows: with deploymentID, cameraID, locationID, locationName, `starts` and `ends`; an end may be None, which is
            the start of the next period.
        used: the names of deployments that images have.
        url: of the table, for messages.

    Raises:
        UsageError: a deploymentID is repeated, or two rows of one name overlap in time.
    """
    refuse_repeated((row["deploymentID"] for row in rows), url)
    as_used = respelled({name for row in rows for name in (row["deploymentID"], *_places(row))}, used)
    named = [row | {"name": as_used.get(row["deploymentID"], row["deploymentID"])} for row in rows]
    deployments = {row["name"] for row in named}
    for row in rows:
        names = {as_used.get(name, name) for name in _places(row)}
        named += [row | {"name": name} for name in names if name in used and name not in deployments]
    named.sort(key=lambda row: (row["name"], row["starts"], row["deploymentID"]))
    for one, two in pairwise(named):
        same_start = one["starts"] == two["starts"]
        if one["name"] == two["name"] and (same_start or (one["ends"] is not None and two["starts"] < one["ends"])):
            raise UsageError(
                f"{url}: deployments {one['deploymentID']} and {two['deploymentID']} are both of {one['name']} and "
                f"overlap in time, so images of {one['name']} belong to either; correct deploymentStart or "
                "deploymentEnd"
            )
    return named


def refuse_repeated(deployments: Iterable[str | None], url: str) -> None:
    """Raise UsageError if rows of a table have the same deploymentID."""
    for name, count in Counter(deployments).items():
        if name and count > 1:
            raise UsageError(
                f"{url}: deploymentID {name} stands there {count} times; give each period of a camera a deploymentID "
                "of its own, and name the camera in cameraID or its place in locationName"
            )


def _places(row: dict[str, Any]) -> set[str]:
    """Return the names of a row besides its deploymentID."""
    camera, *locations = (row.get(name) for name in ("cameraID", "locationID", "locationName"))
    joined = [f"{location}/{camera}" for location in locations if location and camera]
    return {name for name in (camera, *locations, *joined) if name}


def _row(row: dict[str, Any], timezone: str | None, clocks: CameraClocks) -> dict[str, Any]:
    if not row["deploymentID"]:
        raise ValueError("has no deploymentID (NA and NaN stand for none, too); fill it in")
    zone = row.get("timezone") or timezone
    starts, ends = (_clock_time(row, f"deployment{which}", zone, clocks) for which in ("Start", "End"))
    whole_day = ends and csv_input.is_day(row["deploymentEnd"])
    last = ends + timedelta(days=1, milliseconds=-1) if ends and whole_day else ends
    if starts and last and last < starts:
        raise ValueError(f"deploymentEnd {row['deploymentEnd']} lies before deploymentStart {row['deploymentStart']}")
    place = {name: _coordinate(row, name, bound) for name, bound in _BOUNDS.items()}
    return row | place | {"starts": starts or _EARLY, "ends": ends, "last": last or _LATE}


def _clock_time(row: dict[str, Any], column: str, zone: str | None, clocks: CameraClocks) -> datetime | None:
    """Return what the camera's clock shows at a time of the table."""
    text = row.get(column)
    if not text:
        return None
    try:
        moment = csv_input.moment(text)
    except ValueError as error:
        raise ValueError(f"{column} {text!r} is no time; write 2024-05-01 or 2024-05-01T12:00:00") from error
    if moment.tzinfo and zone:
        return clocks.show(zone, moment)
    if moment.utcoffset() == timedelta(0):
        raise ValueError(f"{column} {text} is in UTC; give --timezone of the cameras' clocks, or a column timezone")
    return moment.replace(tzinfo=None)


def _coordinate(row: dict[str, Any], name: str, bound: float) -> float | None:
    text = row.get(name)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} {text} is no number; write degrees, as in 52.5163")
    value = float(text)
    if not abs(value) <= bound:
        raise ValueError(f"{name} {text} is beyond {bound:g} degrees; latitude and longitude may be exchanged")
    return value


def _kept(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "deployment": row["deploymentID"],
                "location": row.get("locationName") or row.get("locationID"),
                "camera": row.get("cameraID"),
                "latitude": row["latitude"],
                "longitude": row["longitude"],
                "started_at": None if row["starts"] == _EARLY else row["starts"],
                "ended_at": None if row["last"] == _LATE else row["last"],
            }
            for row in rows
        ],
        SCHEMA,
    )
