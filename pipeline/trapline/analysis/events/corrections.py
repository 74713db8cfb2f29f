"""Read a user's corrections of wrong camera clocks: a CSV with one row per clock and period.

    deployment   whose clock it is
    camera       which of its cameras; empty: all of them
    folder       below which of its folders (card-2, DCIM/101RECNX), where one date was shown twice; empty: all of them
    from, to     first and last time on that clock (2024-05-01 or 2024-05-01T12:00:00) that is wrong; empty: no limit
    offset       what is added to the clock's time: 01:00:00, -00:02:30, 8766d 03:00:00
    image        instead of an offset: an image (its URI, or the end of it) …
    true_time    … and the time at which it was really taken

The first row that applies to an image is used. Only times change; which deployment an image belongs to does not.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import duckdb

from trapline.analysis import csv_input
from trapline.analysis.spelling import composed, respelled
from trapline.analysis.sql import literal
from trapline.errors import UsageError

_COLUMNS = ("camera", "folder", "from", "to", "offset", "image", "true_time")
_NO_TIME = "is no time on the camera's clock; write 2024-05-01T12:00:00, without a zone"
# Further no clock is wrong, and readers of the tables have no times after the year 9999.
_MOST = timedelta(days=36_525)
_OFFSET = re.compile(r"([+-])?(?:(\d+)\s*d\s+)?(\d+):([0-5]\d)(?::([0-5]\d))?")


@dataclass(frozen=True)
class Correction:
    """A period in which a clock was wrong by a constant.

    Attributes:
        deployment: whose clock it is.
        camera: which of its cameras; None for all of them.
        first, last: the period, on that clock; None: no limit.
        milliseconds: what is added to the clock's time.
        folder: segments of the path that an image lies below; None: any.
        line: of the file; no part of what is corrected.
    """

    deployment: str
    camera: str | None
    first: datetime | None
    last: datetime | None
    milliseconds: int
    folder: str | None = field(default=None, repr=False)
    line: int = field(default=0, repr=False, compare=False)


def read(url: str, connection: duckdb.DuckDBPyConnection) -> tuple[Correction, ...]:
    """Return the corrections in a CSV file.

    Args:
        url: of the file.
        connection: has the view `located`, without corrections, to look up images and deployments.

    Raises:
        UsageError: the file is no such table, or a row of it names no image or no deployment of the results.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    table = csv_input.read(url, ["deployment"], _COLUMNS)
    known: dict[str, set[str]] = defaultdict(set)
    for deployment, camera in connection.sql("select distinct deployment, camera from located").fetchall():
        known[deployment].add(camera)
    known.pop(None, None)  # type: ignore[call-overload]
    rows = table.to_pylist()
    places = respelled({row["deployment"] for row in rows if row["deployment"]}, known)
    corrections = []
    for line, row in zip(csv_input.lines(table).tolist(), rows, strict=True):
        try:
            row["deployment"] = places.get(row["deployment"], row["deployment"])
            corrections.append(replace(_correction(row, known, connection), line=line))
        except ValueError as error:
            raise UsageError(f"{url}: line {line}: {error}") from error
    return tuple(corrections)


def correction_ms(corrections: Sequence[Correction]) -> str:
    """Return SQL for what is added to an image's `captured_at`, in ms; 0 where no correction applies."""
    cases = [f"when {_applies(each)} then {each.milliseconds}" for each in corrections]
    return f"(case {' '.join(cases)} else 0 end)::bigint" if cases else "0::bigint"


def unused(connection: duckdb.DuckDBPyConnection, corrections: Sequence[Correction]) -> list[int]:
    """Return the lines of corrections that no image needs; `connection` as for `read`.

    Their period holds no time of the clock (the true times were written in its place), or an earlier line applies.
    """
    cases = [f"when {_applies(each)} then {place}" for place, each in enumerate(corrections)]
    found = connection.sql(f"select distinct case {' '.join(cases)} end from located where captured_at is not null")
    used = {place for (place,) in found.fetchall()}
    return [each.line for place, each in enumerate(corrections) if place not in used]


def _applies(each: Correction) -> str:
    """Return SQL for whether a correction is of an image's clock at its time."""
    conditions = [f"deployment = {literal(each.deployment)}"]
    conditions += [f"camera = {literal(each.camera)}"] if each.camera else []
    # The end of a shard ends a folder, too.
    path = f"'/' || {_with_slashes('image_uri')}"
    conditions += [f"contains({path}, {literal(f'/{each.folder}/')})"] if each.folder else []
    conditions += [f"captured_at >= timestamp '{each.first}'"] if each.first else []
    conditions += [f"captured_at <= timestamp '{each.last}'"] if each.last else []
    return " and ".join(conditions)


def _with_slashes(name: str) -> str:
    """Return SQL for a name in which `/` stands for whatever separates folders, shards and images."""
    return f"translate(nfc_normalize({name}), '\\#', '//')"


def _correction(
    row: dict[str, str | None], known: Mapping[str, set[str]], connection: duckdb.DuckDBPyConnection
) -> Correction:
    deployment, image, true_time = row["deployment"], row.get("image"), row.get("true_time")
    if not deployment:
        raise ValueError("names no deployment")
    if deployment not in known:
        raise ValueError(f"the results have no deployment {deployment!r}, only such as {min(known, default=None)!r}")
    camera = row.get("camera")
    camera = respelled([camera], known[deployment]).get(camera, camera) if camera else None
    if camera and camera not in known[deployment]:
        raise ValueError(f"deployment {deployment} has no camera {camera!r}, only such as {min(known[deployment])!r}")
    if bool(row.get("offset")) == bool(image) or bool(image) != bool(true_time):
        raise ValueError("give either an offset, or an image and its true_time")
    if image and true_time:
        shift = _time(true_time, "true_time") - _clock_time(deployment, camera, image, connection)
    else:
        shift = _offset(row["offset"] or "")
    if abs(shift) > _MOST:
        raise ValueError(f"the clock would be wrong by {shift.days:,} days, more than a century; correct it")
    begin, end = row.get("from"), row.get("to")
    first = _time(begin, "from") if begin else None
    last = _end_of_day(end) if end else None
    if first and last and last < first:
        raise ValueError(f"to {end} lies before from {begin}, so no time is between them; correct one of them")
    folder = composed(row.get("folder") or "").replace("\\", "/").replace("#", "/").removeprefix("./").strip("/")
    if row.get("folder") and not folder:
        raise ValueError(f"folder {row['folder']!r} names none; write it as in image_uri")
    return Correction(deployment, camera, first, last, round(shift.total_seconds() * 1000), folder or None)


def _offset(text: str) -> timedelta:
    found = _OFFSET.fullmatch(text)
    if not found:
        raise ValueError(
            f"offset {text!r} is none; write hours, minutes and seconds: 01:00:00, -00:02:30, 366d 00:00:00"
        )
    sign, days, hours, minutes, seconds = found.groups(default="0")
    size = timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return -size if sign == "-" else size


def _time(text: str, column: str) -> datetime:
    try:
        moment = csv_input.moment(text)
    except ValueError as error:
        raise ValueError(f"{column} {text!r} {_NO_TIME}") from error
    if moment.tzinfo:
        raise ValueError(f"{column} {text!r} {_NO_TIME}")
    return moment


def _end_of_day(text: str) -> datetime:
    """Return the last moment that a limit includes: of a date, that of the day."""
    moment = _time(text, "to")
    return moment + timedelta(days=1, milliseconds=-1) if csv_input.is_day(text) else moment


def _clock_time(deployment: str, camera: str | None, image: str, connection: duckdb.DuckDBPyConnection) -> datetime:
    found = connection.execute(
        f"""with named as (
               select *, {_with_slashes("image_uri")} as uri, {_with_slashes("$2")} as image from located
               where deployment = $1 and camera = coalesce($3, camera)
           )
           select image_uri, captured_at from named
           where uri = image or ends_with(uri, '/' || image)
           qualify image_uri = $2 or not bool_or(image_uri = $2) over () limit 2""",
        [deployment, image, camera],
    ).fetchall()
    if not found:
        raise ValueError(f"deployment {deployment} has no image {image}")
    if len(found) > 1:
        raise ValueError(
            f"deployment {deployment} has several images {image}, such as {found[0][0]}; give more of its path"
        )
    ((uri, captured_at),) = found
    if captured_at is None:
        raise ValueError(f"image {uri} has no time of its own to be corrected")
    moment: datetime = captured_at
    return moment
