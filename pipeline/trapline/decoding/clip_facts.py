"""Read what a container's tags say about a clip: when, where, with which camera.

A fact that is absent, malformed or a placeholder is None; nothing is guessed. A time is as written, with the zone that
is written with it, or that the container's specification defines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

# Tags as FFmpeg and `container_dates` name them, the surest first; the row's name of the tag by container; whether the
# specification says UTC where no zone is written. QuickTime's own tag has the camera's offset; ISO/IEC 14496-12 says
# UTC of `mvhd`, Matroska of `DateUTC`. AVI has the camera's clock.
_APPLE: Final = "com.apple.quicktime.creationdate"
_NAMES: Final = {"mkv": "DateUTC", "webm": "DateUTC", "avi": "IDIT", "mp4": "mvhd", "mov": "mvhd", "3gp": "mvhd"}
_TAGS: Final = (_APPLE, "IDIT", "CreationDate", "creation_time", "ICRD", "date")

_MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}:\d{2})(?:\.(\d+))? ?(Z|[+-]\d{2}:?\d{2})?", re.ASCII)
# What cameras write into AVI: `Mon Mar 10 15:04:43 2003` by its specification, and `2001/ 1/27  1:42PM`,
# `2005/11/28/ 09:19`, `2002-12-16  15:35:01` or, as in EXIF, `2010:08:17 11:42:43`.
_IN_WORDS = re.compile(
    r"(?:[a-z]{3},? +)?(?P<month>[a-z]{3}) +(?P<day>\d{1,2}),? +"
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)(?: ?(?P<half>[ap])m)? +(?P<year>\d{4})",
    re.ASCII | re.IGNORECASE,
)
_IN_FIGURES = re.compile(
    r"(?P<year>\d{4})(?P<mark>[-/:.]) ?(?P<month>\d{1,2})(?P=mark) ?(?P<day>\d{1,2})/?(?:T| +)"
    r"(?P<hour>\d{1,2}): ?(?P<minute>\d{1,2})(?:: ?(?P<second>\d{1,2}))?(?: ?(?P<half>[ap])m)?",
    re.ASCII | re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Where the counting of seconds begins: in QuickTime, Unix, FAT, Matroska, ASF. A clock that was never set says so.
_PLACEHOLDERS = {(1904, 1, 1), (1970, 1, 1), (1980, 1, 1), (1601, 1, 1)}
_MATROSKA_ZERO = datetime(2001, 1, 1)
# ISO 6709 as Apple and Android write it: degrees with a decimal point. FFmpeg adds the name that 3GP gives the place.
_PLACE = re.compile(r"([+-]\d{1,2}\.\d+)([+-]\d{1,3}\.\d+)(?:[+-]\d+(?:\.\d+)?)?(?:CRS\w+)?(?:/.*)?", re.ASCII)


@dataclass(frozen=True)
class ClipTags:
    """The facts of one clip; the fields are columns of the output row."""

    captured_at: datetime | None = None
    captured_at_tag: str | None = None
    captured_at_offset: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    camera_make: str | None = None
    camera_model: str | None = None


def read(tags: Mapping[str, str], container: str) -> ClipTags:
    """Read the facts from a container's tags, as FFmpeg names them.

    Args:
        tags: of the container.
        container: its name, as `containers.recognise` gives it.
    """
    moment, tag, offset = _moment(tags, container)
    latitude, longitude = _place(tags)
    return ClipTags(
        captured_at=moment,
        captured_at_tag=tag,
        captured_at_offset=offset,
        latitude=latitude,
        longitude=longitude,
        camera_make=_text(tags, "com.apple.quicktime.make", "com.android.manufacturer", "make"),
        camera_model=_text(tags, "com.apple.quicktime.model", "com.android.model", "model"),
    )


def _moment(tags: Mapping[str, str], container: str) -> tuple[datetime, str, str | None] | tuple[None, None, None]:
    for name in _TAGS:
        try:
            found = _parsed(tags.get(name, "").strip())
        except ValueError:
            continue
        if not found:
            continue
        moment, zone = found
        if (moment.year, moment.month, moment.day) in _PLACEHOLDERS or moment == _MATROSKA_ZERO:
            continue
        written = _NAMES.get(container, name) if name == "creation_time" else name
        if (name, container) == ("date", "avi"):  # as FFmpeg calls it
            written = "ICRD"
        return moment, written, _offset(zone)
    return None, None, None


def _parsed(text: str) -> tuple[datetime, str | None] | None:
    """Return the moment that a tag names, and the zone that it names; None where it names no moment.

    Raises:
        ValueError: there is no such moment.
    """
    if match := _MOMENT.fullmatch(text):
        date, time, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{date}T{time}")
        return moment.replace(microsecond=int((fraction or "0")[:3].ljust(3, "0")) * 1000), zone
    match = _IN_WORDS.fullmatch(text) or _IN_FIGURES.fullmatch(text)
    if not match:
        return None
    month, half, hour = match["month"].lower(), match["half"], int(match["hour"])
    if half and hour <= 12:
        hour = hour % 12 + (12 if half in "pP" else 0)
    number = int(month) if month.isdecimal() else _MONTHS.index(month) + 1
    return datetime(
        int(match["year"]), number, int(match["day"]), hour, int(match["minute"]), int(match["second"] or 0)
    ), None


def _offset(zone: str | None) -> str | None:
    if zone is None:
        return None
    return "+00:00" if zone == "Z" else f"{zone[:3]}:{zone[-2:]}"


def _place(tags: Mapping[str, str]) -> tuple[float, float] | tuple[None, None]:
    text = next((tags[name] for name in ("com.apple.quicktime.location.ISO6709", "location") if name in tags), "")
    match = _PLACE.fullmatch(text.strip())
    if not match:
        return None, None
    latitude, longitude = float(match[1]), float(match[2])
    if abs(latitude) > 90 or abs(longitude) > 180 or (latitude == 0 and longitude == 0):
        return None, None
    return latitude, longitude


def _text(tags: Mapping[str, str], *names: str) -> str | None:
    return next((text for name in names if (text := tags.get(name, "").strip())), None)
