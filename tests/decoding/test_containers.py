from pathlib import Path

import pytest

from tests.support.clips import KINDS, clip
from trapline.decoding import containers, formats
from trapline.decoding.containers import HEAD_BYTES, recognise

ONE_OF_EACH = list({muxer: (suffix, codec, pixels, muxer) for suffix, codec, pixels, muxer in KINDS}.values())


@pytest.mark.parametrize(("suffix", "codec", "pixels", "muxer"), ONE_OF_EACH)
def test_a_container_is_known_by_its_bytes_and_whether_it_is_whole(
    suffix: str, codec: str, pixels: str, muxer: str, tmp_path: Path
) -> None:
    data = clip(codec, pixels, muxer)
    found = recognise(data[:HEAD_BYTES])
    assert found is not None
    assert found.name == {"m4v": "mp4", "wmv": "asf"}.get(suffix, suffix)
    assert formats.of(data) is None
    path = tmp_path / "clip"
    path.write_bytes(data)
    assert not containers.breaks_off(str(path), found)
    if muxer != "mpeg":  # which states no length
        for part in (2, 3):
            path.write_bytes(data[: len(data) // part + 1])
            assert containers.breaks_off(str(path), found)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8\xff\xe0" + bytes(20),
        # Packets of MPEG-TS begin with a G, and so may the length of a JPEG's first segment.
        b"\xff\xd8\xff\xe1" + (b"G" + bytes(191)) * 9,
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\0\0\0\x1cftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x1cftypavif\0\0\0\0mif1avif",
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"#EXTM3U\nhttp://example.org/a.ts",
        b"ffconcat version 1.0\nfile /etc/passwd",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1",
    ],
)
def test_pictures_playlists_and_sounds_are_none(head: bytes) -> None:
    assert recognise(head) is None


def test_what_stands_behind_the_end_of_a_clip_is_no_break(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    data = clip(frames=3)
    found = recognise(data)
    assert found is not None
    texts = b"<?xml version='1.0'?>", b"SERIAL=AB12;TEMP=21C"
    for rest in (b"x", bytes(600), b"\xff" * 600, b"\0\0\0\x0cfree1234", *texts):
        path.write_bytes(data + rest)
        assert not containers.breaks_off(str(path), found)


@pytest.mark.parametrize("options", [{}, {"mpegts_m2ts_mode": "1"}])
def test_zeros_behind_a_transport_stream_are_no_break_and_a_part_of_a_packet_is_one(
    options: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "clip"
    data = clip(muxer="mpegts", frames=3, options=options)
    found = recognise(data)
    assert found is not None
    padded = [(data + bytes(length), False) for length in (*range(1, 6), 1000)]
    for written, breaks_off in (*padded, (data[:-1], True), (data[:-186], True)):
        path.write_bytes(written)
        assert containers.breaks_off(str(path), found) == breaks_off


def test_a_camera_that_lost_its_power_leaves_a_length_of_zero(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    data = bytearray(clip("mjpeg", "yuvj420p", "avi"))
    data[4:8] = bytes(4)
    path.write_bytes(data)
    found = recognise(bytes(data))
    assert found is not None
    assert containers.breaks_off(str(path), found)


def test_a_camera_that_counts_the_header_of_avi_as_well_leaves_no_break(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    data = clip("mjpeg", "yuvj420p", "avi", frames=2)
    path.write_bytes(data[:4] + len(data).to_bytes(4, "little") + data[8:])
    found = recognise(data)
    assert found is not None
    assert not containers.breaks_off(str(path), found)


@pytest.mark.parametrize(("main", "name"), [(b"mp42", "mp4"), (b"qt  ", "mov"), (b"mif1", None), (b"xxxx", None)])
def test_the_main_brand_says_what_moves_and_others_where_it_says_nothing(main: bytes, name: str | None) -> None:
    found = recognise(b"\0\0\0\x1cftyp" + main + b"\0\0\0\0mif1heic")
    assert (found.name if found else None) == name
