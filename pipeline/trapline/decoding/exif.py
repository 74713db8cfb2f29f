"""What a photograph says about itself in EXIF: when, where, with which camera.

A fact that is absent, malformed or a camera's placeholder is None; nothing is guessed from elsewhere. Tags and formats:
CIPA DC-008 (EXIF 2.32), sections 4.6.4 to 4.6.6.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from PIL import ExifTags
from PIL.Image import Image

# Reconyx cameras keep the serial number in their MakerNote alone: up to 15 characters of UTF-16LE. Offsets in bytes, by
# the note's first bytes, as ExifTool documents them (tags "Reconyx HyperFire" and "Reconyx HyperFire 2").
_RECONYX_SERIAL_AT = {b"\x01\xf1": 0x2A, b"RECONYXH2\0": 0x7E}
_RECONYX_SERIAL = re.compile("[A-Z0-9]{8,15}")


@dataclass(frozen=True)
class Exif:
    """The facts of one photograph; the fields are columns of the output row."""

    captured_at: datetime | None = None  # the camera's clock, without zone; to the millisecond where the camera says so
    latitude: float | None = None  # degrees north
    longitude: float | None = None  # degrees east
    camera_make: str | None = None
    camera_model: str | None = None
    camera_serial: str | None = None


def read(image: Image) -> Exif:
    """Reads the facts from an opened image of any format; needs no pixels, and never raises for what is in the file."""
    root = _directory(image)
    details = _directory(image, ExifTags.IFD.Exif)
    latitude, longitude = _position(_directory(image, ExifTags.IFD.GPSInfo))
    return Exif(
        captured_at=_captured_at(details),
        latitude=latitude,
        longitude=longitude,
        camera_make=_text(root.get(ExifTags.Base.Make)),
        camera_model=_text(root.get(ExifTags.Base.Model)),
        camera_serial=_serial(details),
    )


def orientation(image: Image) -> int:
    """How to turn the picture, 1 to 8; 1 where it does not say, and where Pillow has turned it already."""
    value = _directory(image).get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) and image.format != "TIFF" else 1


def _directory(image: Image, tag: int | None = None) -> dict[int, Any]:
    try:
        exif = image.getexif()
        return dict(exif) if tag is None else exif.get_ifd(tag)
    except Exception:  # noqa: BLE001 - whatever Pillow trips over in a broken directory costs facts, never the picture
        return {}


def _text(value: object) -> str | None:
    """Cuts at the first NUL, as ASCII values end there; what cameras leave behind it is not text."""
    return value.partition("\0")[0].strip() or None if isinstance(value, str) else None


def _captured_at(details: dict[int, Any]) -> datetime | None:
    """DateTimeOriginal only: DateTime is when the file was changed, and "0000:00:00 00:00:00" is a clock never set."""
    try:
        moment = datetime.strptime(_text(details.get(ExifTags.Base.DateTimeOriginal)) or "", "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    fraction = _text(details.get(ExifTags.Base.SubsecTimeOriginal)) or ""
    if not (fraction.isascii() and fraction.isdigit()):
        return moment
    return moment.replace(microsecond=int(fraction[:3].ljust(3, "0")) * 1000)


def _position(gps: dict[int, Any]) -> tuple[float, float] | tuple[None, None]:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "N", "S", 90)
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "E", "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0,0: a receiver without a fix
        return None, None
    return latitude, longitude


def _degrees(value: object, reference: object, positive: str, negative: str, limit: int) -> float | None:
    """Degrees, minutes and seconds with their hemisphere; cameras without a receiver leave the hemisphere empty."""
    hemisphere = _text(reference)
    if hemisphere not in (positive, negative) or not isinstance(value, tuple) or len(value) != 3:
        return None
    try:
        degrees, minutes, seconds = (float(part) for part in value)
    except (TypeError, ValueError):
        return None
    angle = degrees + minutes / 60 + seconds / 3600
    if not 0 <= angle <= limit:  # also refuses NaN, which is what a zero denominator becomes
        return None
    return angle if hemisphere == positive else -angle


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
