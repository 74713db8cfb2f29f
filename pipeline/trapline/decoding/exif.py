"""Read what EXIF says about a photograph: when, where, with which camera.

A fact that is absent, malformed or a camera's placeholder is None; nothing is guessed. Tags and formats: CIPA DC-008
(EXIF 2.32), sections 4.6.4 to 4.6.6.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from math import isnan, nan
from typing import Any

from PIL import ExifTags
from PIL.Image import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Reconyx cameras have the serial number only in their MakerNote: up to 15 characters of UTF-16LE. Offsets in bytes, by
# the note's first bytes, as ExifTool documents them (tags "Reconyx HyperFire" and "Reconyx HyperFire 2").
_RECONYX_SERIAL_AT = {b"\x01\xf1": 0x2A, b"RECONYXH2\0": 0x7E}
_RECONYX_SERIAL = re.compile("[A-Z0-9]{8,15}")

_CLOCKS = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.SubsecTime, ExifTags.Base.OffsetTime),
)
# EXIF's format, and ISO 8601; with the year first, day and month are unambiguous.
_MOMENT = re.compile(
    r"(\d{4}[:/-]\d{2}[:/-]\d{2})[ T](\d{2}:\d{2}:\d{2})(?:[.,](\d+))? ?(Z|[+-]\d{2}:?\d{2})?", re.ASCII
)
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})", re.ASCII)
_LARGEST_OFFSET = 14  # hours: Kiritimati
# Characters. The driver holds the rows of a shard, and values of 60 KB in each of its pictures compress to very little.
_LONGEST_TEXT = 1000

# EXIF 3.0 has a type for UTF-8, which Pillow does not know: read it as ASCII is read.
ImageFileDirectory_v2._load_dispatch.setdefault(129, ImageFileDirectory_v2._load_dispatch[2])


@dataclass(frozen=True)
class Exif:
    """The facts of one photograph; the fields are columns of the output row."""

    captured_at: datetime | None = None  # the camera's clock, without zone; to the millisecond if the camera says so
    captured_at_tag: str | None = None  # "DateTimeOriginal", "DateTimeDigitized" or "DateTime"
    captured_at_offset: str | None = None  # of that clock from UTC, "+02:00"
    latitude: float | None = None  # degrees north
    longitude: float | None = None  # degrees east
    camera_make: str | None = None
    camera_model: str | None = None
    camera_serial: str | None = None


def read(image: Image) -> Exif:
    """Read the facts from an opened image of any format; its pixels are not needed. Never raise for damaged EXIF."""
    root = _directory(image)
    details = _directory(image, ExifTags.IFD.Exif)
    clock = _clock(root, details)
    latitude, longitude = _position(_directory(image, ExifTags.IFD.GPSInfo))
    return Exif(
        captured_at=clock.moment if clock else None,
        captured_at_tag=clock.tag if clock else None,
        captured_at_offset=clock.offset if clock else None,
        latitude=latitude,
        longitude=longitude,
        camera_make=_text(root.get(ExifTags.Base.Make)),
        camera_model=_text(root.get(ExifTags.Base.Model)),
        camera_serial=_serial(details),
    )


def orientation(image: Image) -> int:
    """Return how to turn the picture, 1 to 8; 1 if it does not say, or if Pillow has turned it already."""
    value = _directory(image).get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) and image.format != "TIFF" else 1


def _directory(image: Image, tag: int | None = None) -> dict[int, Any]:
    try:
        exif = image.getexif()
        return dict(exif) if tag is None else exif.get_ifd(tag)
    except Exception:  # noqa: BLE001 - Pillow raises anything on a damaged directory, which must not cost the picture
        return {}


def _text(value: object) -> str | None:
    """Return text up to the first NUL, where ASCII values end; what some cameras leave after it is not text.

    EXIF specifies ASCII. Cameras write UTF-8 and Latin-1, too, with the type bytes (1), undefined (7) or UTF-8 (129).
    """
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")  # as Pillow decoded it
    if not isinstance(value, bytes):
        return None
    value = value.partition(b"\0")[0]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text[:_LONGEST_TEXT].strip() or None


@dataclass(frozen=True)
class _Clock:
    """When a picture was taken, by the camera's clock; see `Exif`."""

    moment: datetime
    tag: str
    offset: str | None


def _clock(root: dict[int, Any], details: dict[int, Any]) -> _Clock | None:
    """Read the first of three tags that is present, even if it is malformed: a later one would be another moment.

    DateTime is when the file was last changed, so the row says which tag the time is from. "0000:00:00 00:00:00" is a
    clock that was never set.
    """
    values = {**root, **details}
    tags = next((tags for tags in _CLOCKS if _text(values.get(tags[0]))), None)
    match = _MOMENT.fullmatch(_text(values.get(tags[0])) or "") if tags else None
    if not tags or not match:
        return None
    tag, fraction_tag, offset_tag = tags
    date, time, fraction, zone = match.groups()
    try:
        moment = datetime(*map(int, (*re.split("[:/-]", date), *time.split(":"))))  # type: ignore[arg-type]
    except ValueError:
        return None
    fraction = fraction or _text(values.get(fraction_tag)) or ""
    if fraction.isascii() and fraction.isdigit():
        moment = moment.replace(microsecond=int(fraction[:3].ljust(3, "0")) * 1000)
    offset = _offset(zone) or _offset(_text(values.get(offset_tag)))
    return _Clock(moment, ExifTags.Base(tag).name, offset)


def _offset(text: str | None) -> str | None:
    """Return an offset from UTC as "+02:00"; None if the text is none."""
    if text in ("Z", "z"):
        return "+00:00"
    match = _OFFSET.fullmatch(text or "")
    if not match or int(match["hours"]) > _LARGEST_OFFSET or int(match["minutes"]) > 59:
        return None
    return f"{match['sign']}{match['hours']}:{match['minutes']}"


def _position(gps: dict[int, Any]) -> tuple[float, float] | tuple[None, None]:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "N", "S", 90)
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "E", "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0,0: a receiver without a fix
        return None, None
    return latitude, longitude


def _degrees(value: object, reference: object, positive: str, negative: str, limit: int) -> float | None:
    """Return degrees, minutes and seconds as one number.

    Cameras without a receiver leave the hemisphere empty. Cameras that write fractions of minutes may write 0/0 for the
    seconds: an undefined part adds nothing, but without degrees there is no position.
    """
    hemisphere = _text(reference)
    if hemisphere not in (positive, negative) or not isinstance(value, tuple) or len(value) != 3:
        return None
    try:
        degrees, minutes, seconds = (_number(part) for part in value)
    except (TypeError, ValueError):
        return None
    angle = degrees + sum(part / unit for part, unit in ((minutes, 60), (seconds, 3600)) if not isnan(part))
    if not 0 <= angle <= limit:  # NaN, from a zero denominator, is refused, too
        return None
    return angle if hemisphere == positive else -angle


def _number(part: Any) -> float:
    try:
        return float(part)
    except ZeroDivisionError:  # Pillow before 13; later ones give NaN
        return nan


def _serial(details: dict[int, Any]) -> str | None:
    serial = _text(details.get(ExifTags.Base.BodySerialNumber))
    note = details.get(ExifTags.Base.MakerNote)
    if serial or not isinstance(note, bytes):
        return serial
    for beginning, offset in _RECONYX_SERIAL_AT.items():
        if note.startswith(beginning):
            found = _text(note[offset : offset + 30].decode("utf-16-le", errors="replace"))
            return found if found and _RECONYX_SERIAL.fullmatch(found) else None
    return None
