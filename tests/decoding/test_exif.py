"""What a photograph says about itself."""

import csv
import io
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from trapline.decoding import exif
from trapline.decoding.exif import Exif

# Pillow warns of what these tests make broken; `decode` keeps that from the user's log.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

BRUSSELS = {1: "N", 2: (50.0, 51.0, 0.0), 3: "E", 4: (4.0, 21.0, 0.0)}


def photograph(
    root: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    file_format: str = "JPEG",
) -> Image.Image:
    """A picture of one pixel with these directories."""
    block = Image.Exif()
    block.update(root or {})
    block.get_ifd(ExifTags.IFD.Exif).update(details or {})
    block.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, file_format, exif=block.tobytes())
    return Image.open(buffer)


def with_exif_block(block: bytes) -> Image.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "JPEG", exif=b"Exif\0\0" + block)
    return Image.open(buffer)


def captured_at(moment: str, **fraction: str) -> datetime | None:
    details = {ExifTags.Base.DateTimeOriginal: moment}
    if fraction:
        details[ExifTags.Base.SubsecTimeOriginal] = fraction["fraction"]
    return exif.read(photograph(details=details)).captured_at


def position(gps: dict[int, Any]) -> tuple[float | None, float | None]:
    facts = exif.read(photograph(gps=gps))
    return facts.latitude, facts.longitude


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_facts_are_read_from_every_format_that_has_exif(file_format: str) -> None:
    image = photograph(
        {ExifTags.Base.Make: "RECONYX", ExifTags.Base.Model: "HP2X"},
        {ExifTags.Base.DateTimeOriginal: "2021:04:11 20:43:09", ExifTags.Base.BodySerialNumber: "H2X01"},
        BRUSSELS,
        file_format,
    )
    assert exif.read(image) == Exif(
        captured_at=datetime(2021, 4, 11, 20, 43, 9),
        captured_at_tag="DateTimeOriginal",
        latitude=50.85,
        longitude=4.35,
        camera_make="RECONYX",
        camera_model="HP2X",
        camera_serial="H2X01",
    )


def test_a_picture_without_exif_has_no_facts() -> None:
    assert exif.read(Image.new("RGB", (1, 1))) == Exif()


BASE = ExifTags.Base
TAGS = [
    (BASE.DateTimeOriginal, BASE.SubsecTimeOriginal, BASE.OffsetTimeOriginal),
    (BASE.DateTimeDigitized, BASE.SubsecTimeDigitized, BASE.OffsetTimeDigitized),
    (BASE.DateTime, BASE.SubsecTime, BASE.OffsetTime),
]


def clock(root: dict[int, Any] | None = None, details: dict[int, Any] | None = None) -> tuple[Any, ...]:
    facts = exif.read(photograph(root, details))
    return facts.captured_at, facts.captured_at_tag, facts.captured_at_offset


@pytest.mark.parametrize(("tag", "fraction", "offset"), TAGS)
def test_a_moment_alone_is_read_from_any_of_three_tags_which_is_told(tag: int, fraction: int, offset: int) -> None:
    values = {tag: "2021:04:11 20:43:09", fraction: "25", offset: "+05:30"}
    directories = ({tag: values.pop(tag)}, values) if tag == BASE.DateTime else (None, values)
    assert clock(*directories) == (datetime(2021, 4, 11, 20, 43, 9, 250_000), ExifTags.Base(tag).name, "+05:30")


def test_the_moment_of_capture_comes_before_that_of_a_change() -> None:
    root = {BASE.DateTime: "2022:01:01 00:00:00", BASE.OffsetTime: "+09:00"}
    digitized = {BASE.DateTimeDigitized: "2021:06:01 00:00:00"}
    original = {BASE.DateTimeOriginal: "2021:05:01 00:00:00"}
    assert clock(root, digitized | original) == (datetime(2021, 5, 1), "DateTimeOriginal", None)
    assert clock(root, digitized) == (datetime(2021, 6, 1), "DateTimeDigitized", None)
    assert clock(root, {BASE.DateTimeOriginal: "0000:00:00 00:00:00"}) == (None, None, None)


@pytest.mark.parametrize(
    ("written", "moment", "offset"),
    [
        ("2021:04:11 20:43:09", datetime(2021, 4, 11, 20, 43, 9), None),
        ("2021:04:11 20:43:09+02:00", datetime(2021, 4, 11, 20, 43, 9), "+02:00"),
        ("2021:04:11 20:43:09 -0330", datetime(2021, 4, 11, 20, 43, 9), "-03:30"),
        ("2021:04:11 20:43:09Z", datetime(2021, 4, 11, 20, 43, 9), "+00:00"),
        ("2021-04-11T20:43:09", datetime(2021, 4, 11, 20, 43, 9), None),
        ("2021-04-11T20:43:09.5+10:00", datetime(2021, 4, 11, 20, 43, 9, 500_000), "+10:00"),
        ("2021-04-11 20:43:09", datetime(2021, 4, 11, 20, 43, 9), None),
        ("2021/04/11 20:43:09", datetime(2021, 4, 11, 20, 43, 9), None),
        ("2021:04:11 20:43:09+99:00", datetime(2021, 4, 11, 20, 43, 9), None),
        ("2021:04:11 24:00:00", None, None),
        ("2021:13:01 00:00:00", None, None),
        ("11.04.2021 20:43:09", None, None),
        ("04/11/2021 20:43:09", None, None),
        ("2021:04:11", None, None),
        ("２０21:04:11 20:43:09", None, None),
    ],
)
def test_dates_are_read_as_cameras_write_them_where_they_have_one_meaning(
    written: str, moment: datetime | None, offset: str | None
) -> None:
    facts = exif.read(photograph(details={BASE.DateTimeOriginal: written.encode()}))
    assert (facts.captured_at, facts.captured_at_offset) == (moment, offset)


@pytest.mark.parametrize(
    ("written", "offset"),
    [
        ("+02:00", "+02:00"),
        ("-11:00", "-11:00"),
        ("Z", "+00:00"),
        ("   :  ", None),
        ("+2", None),
        ("+15:00", None),
        ("+01:75", None),
    ],
)
def test_an_offset_is_one_or_null(written: str, offset: str | None) -> None:
    details = {BASE.DateTimeOriginal: "2021:04:11 20:43:09", BASE.OffsetTimeOriginal: written}
    assert clock(details=details) == (datetime(2021, 4, 11, 20, 43, 9), "DateTimeOriginal", offset)


def block_of(kind: int, value: bytes, tag: int = BASE.Make) -> bytes:
    """A directory with one value, whose type is one of bytes."""
    entry = struct.pack("<HHI", tag, kind, len(value)) + (value if len(value) <= 4 else struct.pack("<I", 26)).ljust(
        4, b"\0"
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4) + value


@pytest.mark.parametrize("kind", [1, 2, 7, 129])
def test_text_is_read_whatever_its_type(kind: int) -> None:
    assert exif.read(with_exif_block(block_of(kind, b"RECONYX\0"))).camera_make == "RECONYX"
    moment = exif.read(with_exif_block(block_of(kind, b"2021:04:11 20:43:09\0", BASE.DateTime)))
    assert (moment.captured_at, moment.captured_at_tag) == (datetime(2021, 4, 11, 20, 43, 9), "DateTime")


@pytest.mark.parametrize("kind", [1, 2, 7, 129])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_are_read_in_the_encodings_that_cameras_write(kind: int, encoding: str) -> None:
    block = block_of(kind, "Müller GmbH\0".encode(encoding))
    assert exif.read(with_exif_block(block)).camera_make == "Müller GmbH"


@pytest.mark.parametrize(
    "moment", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2021:02:30 12:00:00", "yesterday", ""]
)
def test_a_clock_that_was_never_set_and_a_malformed_time_are_null(moment: str) -> None:
    assert captured_at(moment) is None


@pytest.mark.parametrize(
    ("fraction", "microsecond"),
    [("5", 500_000), ("050", 50_000), ("1239", 123_000), ("07 ", 70_000), ("", 0), ("   ", 0), ("1/2", 0), ("-5", 0)],
)
def test_the_fraction_of_a_second_is_read_as_digits_behind_the_point(fraction: str, microsecond: int) -> None:
    assert captured_at("2021:04:11 20:43:09", fraction=fraction) == datetime(2021, 4, 11, 20, 43, 9, microsecond)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("HYPERFIRE 2 COVERT\0", "HYPERFIRE 2 COVERT"),
        ("Reconyx  ", "Reconyx"),
        ("HC550\0\0junk", "HC550"),
        ("\0\0\0\0", None),
        ("  ", None),
    ],
)
def test_names_end_at_the_first_nul_and_empty_ones_are_null(written: str, read: str | None) -> None:
    facts = exif.read(photograph({ExifTags.Base.Make: written, ExifTags.Base.Model: written}))
    assert (facts.camera_make, facts.camera_model) == (read, read)


def test_south_and_west_are_negative() -> None:
    assert position({1: "S", 2: (33.0, 30.0, 36.0), 3: "W", 4: (70.0, 0.0, 0.0)}) == (pytest.approx(-33.51), -70.0)


@pytest.mark.parametrize(
    "placeholder",
    [
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "\0", 2: (1.0, 1.33, 0.0), 3: "\0", 4: (1.0, 1.33, 0.0)},
        {2: (1.0, 1.33, 0.0), 4: (1.0, 1.33, 0.0)},
    ],
    ids=["no fix", "hemispheres of NUL", "no hemispheres"],
)
def test_placeholders_of_cameras_without_a_receiver_are_null(placeholder: dict[int, Any]) -> None:
    assert position(placeholder) == (None, None)


@pytest.mark.parametrize(
    "broken",
    [
        {2: (91.0, 0.0, 0.0)},
        {4: (180.0, 0.0, 1.0)},
        {2: (50.0, 51.0)},
        {2: 50.0},
        {1: "E"},
        {2: (IFDRational(50, 0), IFDRational(51, 1), IFDRational(0, 1))},
    ],
    ids=["beyond the pole", "beyond the date line", "two numbers", "one", "wrong letter", "zero denominator"],
)
def test_half_a_position_is_none(broken: dict[int, Any]) -> None:
    assert position(BRUSSELS | broken) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "minutes", "latitude"),
    [((0, 0), (5_332_358, 100_000), 50 + 53.32358 / 60), ((7, 0), (51, 1), 50.85), ((0, 1), (0, 0), 50.0)],
)
def test_a_part_that_is_undefined_leaves_the_position_that_is(
    seconds: tuple[int, int], minutes: tuple[int, int], latitude: float
) -> None:
    parts = tuple(IFDRational(*part) for part in ((50, 1), minutes, seconds))
    assert position(BRUSSELS | {2: parts}) == (pytest.approx(latitude), 4.35)


def test_the_equator_is_a_place() -> None:
    assert position(BRUSSELS | {2: (0.0, 0.0, 0.0)}) == (0.0, 4.35)


def test_a_position_of_the_wrong_type_leaves_the_other_facts() -> None:
    block = photograph({ExifTags.Base.Model: "HP2X"}, gps=BRUSSELS).info["exif"].removeprefix(b"Exif\0\0")
    three_rationals, three_letters = b"\0\x02\0\x05\0\0\0\x03", b"\0\x02\0\x02\0\0\0\x03"
    assert block.count(three_rationals) == 1
    assert exif.read(with_exif_block(block.replace(three_rationals, three_letters))) == Exif(camera_model="HP2X")


def test_a_maker_note_that_only_begins_like_one_gives_no_serial_number() -> None:
    for note in (b"\x01\xf1", b"\x01\xf1" + bytes(100), b"RECONYXH2\0" + b"\xd8" * 200, b"\x01\xf1" + b"ab" * 100):
        assert exif.read(photograph(details={ExifTags.Base.MakerNote: note})).camera_serial is None


@given(st.binary(max_size=300))
def test_garbage_never_raises(garbage: bytes) -> None:
    for byte_order in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        exif.read(with_exif_block(byte_order + garbage))


@given(st.data())
def test_damaged_directories_never_raise(data: st.DataObject) -> None:
    sound = photograph({ExifTags.Base.Model: "HP2X"}, {ExifTags.Base.DateTimeOriginal: "2021:04:11 20:43:09"}, BRUSSELS)
    block = bytearray(sound.info["exif"][6:])
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    exif.read(with_exif_block(bytes(block)))


def test_the_herons_were_photographed_when_their_publisher_says(photographs: Path) -> None:
    folder = photographs / "camtrap-dp"
    with (folder / "media.csv").open(encoding="utf-8", newline="") as table:
        published = {row["fileName"]: datetime.fromisoformat(row["timestamp"]) for row in csv.DictReader(table)}
    herons = sorted(folder.glob("*.JPG"))
    assert len(herons) == 10
    for path in herons:
        facts = exif.read(Image.open(path))
        assert facts.captured_at == published[path.name].replace(tzinfo=None)
        assert (facts.camera_make, facts.camera_model) == ("RECONYX", "HYPERFIRE 2 COVERT")


@pytest.mark.parametrize(
    ("name", "serial"),
    [
        ("camtrap-dp/20210531082538-RCNX0031.JPG", "H2RXEM06043616"),  # HyperFire 2
        ("cameratrapai/blank.jpg", "H550HH12223408"),  # HC550 HyperFire
        ("cameratrapai/domestic_dog.jpg", "P800HI05233973"),  # PC800 Professional
        ("cameratrapai/american_black_bear.jpg", "P800BD05003063"),  # says nothing else about itself
        ("ena24/49.jpg", None),  # RC55 RapidFire, whose note is cut to 4 bytes
        ("cameratrapai/blank2.jpg", None),  # another maker: all NUL
    ],
)
def test_reconyx_cameras_tell_their_serial_number(photographs: Path, name: str, serial: str | None) -> None:
    assert exif.read(Image.open(photographs / name)).camera_serial == serial


def test_a_text_is_kept_up_to_a_thousand_characters() -> None:
    assert exif.read(photograph({ExifTags.Base.Make: "owl" * 20_000})).camera_make == ("owl" * 334)[:1000]
