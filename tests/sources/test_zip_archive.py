import io
import random
import re
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import (
    assert_contract_under_flips,
    memory_below,
    read_bytes,
    read_sound,
    shard_of,
    zip_bytes,
)
from trapline.errors import ShardBroken
from trapline.sources import zip_archive
from trapline.sources.counts import count_images


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def noise(size: int) -> bytes:
    """Bytes that no compression makes shorter."""
    return random.Random(size).randbytes(size)


ABC = {"a.jpg": b"a" * 500, "b.jpg": b"b" * 500, "c.jpg": b"c" * 500}


def test_a_zip_cut_anywhere_is_broken(scratch: Path) -> None:
    data = zip_bytes(ABC)
    for cut in {*range(0, len(data), 3), len(data) - 1}:
        outcome = read_bytes(scratch, "a.zip", data[:cut])
        assert isinstance(outcome.error, ShardBroken)
        assert "upload it again" in str(outcome.error)
        assert outcome.records == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_member_with_damaged_data_costs_itself_alone(method: int, scratch: Path) -> None:
    data = bytearray(zip_bytes({name: noise(500) for name in ABC}, method))
    data[data.index(b"b.jpg") + 200] ^= 1
    outcome = read_bytes(scratch, "a.zip", bytes(data))
    assert outcome.error is None
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "unreadable", "c.jpg": None}


def lie(**facts: Any) -> Callable[[zipfile.ZipFile], None]:
    def edit(archive: zipfile.ZipFile) -> None:
        for name, value in facts.items():
            setattr(archive.filelist[1], name, value)

    return edit


def point_back(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].header_offset = archive.filelist[0].header_offset + 10


def point_beyond(archive: zipfile.ZipFile) -> None:
    archive.filelist[1].header_offset = 2**31 - 1


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (lie(flag_bits=1), "encrypted"),
        (lie(flag_bits=0x41), "encrypted"),
        (lie(flag_bits=0x20), "unreadable"),
        (lie(CRC=0), "unreadable"),
        (lie(file_size=10), "unreadable"),
        (lie(compress_size=3), "unreadable"),
        (lie(file_size=2**31 - 1), "too_large"),
        (lie(compress_type=12), "unreadable"),
        (lie(compress_type=99), "encrypted"),
        (lie(compress_type=77), "unreadable"),
        (point_back, "unreadable"),
        (point_beyond, "unreadable"),
    ],
    ids=[
        "encrypted",
        "strongly encrypted",
        "patch",
        "CRC",
        "short",
        "cut",
        "huge",
        "bzip2",
        "AES",
        "unknown",
        "overlap",
        "out",
    ],
)
def test_a_zip_member_that_lies_costs_itself_alone(
    edit: Callable[[zipfile.ZipFile], None], kind: str, scratch: Path
) -> None:
    outcome = read_bytes(scratch, "a.zip", zip_bytes(ABC, edit=edit))
    assert outcome.error is None
    assert outcome.kinds == {"a.jpg": None, "b.jpg": kind, "c.jpg": None}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_of_python_are_read(method: int, scratch: Path) -> None:
    members = {"a.jpg": noise(3000), "b.jpg": bytes(5000), "c.jpg": b""}
    assert read_bytes(scratch, "a.zip", zip_bytes(members, method)).images == members


def test_a_zip_bomb_that_lies_about_its_size_does_not_unfold(scratch: Path) -> None:
    members = {"a.jpg": b"a", "b.jpg": bytes(100 * 2**20)}
    path = scratch / "a.zip"
    path.write_bytes(zip_bytes(members, edit=lie(file_size=1000)))
    with memory_below(2 * 2**20):
        outcome = read_sound(path)
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "unreadable"}


def test_a_zip_bomb_of_overlapping_members_unfolds_once(scratch: Path) -> None:
    def repeat(archive: zipfile.ZipFile) -> None:
        archive.filelist.extend(archive.filelist[:1] * 99)

    outcome = read_bytes(scratch, "a.zip", zip_bytes({"a.jpg": bytes(1000)}, edit=repeat))
    assert Counter(outcome.kinds.values()) == {None: 1, "unreadable": 99}


def test_a_zip_directory_beyond_the_limit_is_refused(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "MAX_DIRECTORY_BYTES", 1000)
    data = zip_bytes({f"{number}.jpg": b"x" for number in range(100)})
    outcome = read_bytes(scratch, "a.zip", data)
    assert isinstance(outcome.error, ShardBroken)
    assert "more headers" in str(outcome.error)


def test_hostile_zip_names_are_keys_and_nothing_more(scratch: Path) -> None:
    names = ["../../etc/a.jpg", "/etc/b.jpg", "c.jpg", f"{'h/' * 2040}h.jpg", "f\ng.jpg", "ü.jpg", "folder.jpg/"]
    outcome = read_bytes(scratch, "a.zip", zip_bytes(dict.fromkeys(names, b"x")))
    assert outcome.error is None
    assert list(outcome.images) == names[:-1]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_names_that_repeat_get_ordinals(scratch: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for number in range(3):
            archive.writestr("a.jpg", bytes([number]))
    outcome = read_bytes(scratch, "a.zip", sink.getvalue())
    assert outcome.images == {"a.jpg": b"\0", "a.jpg@2": b"\1", "a.jpg@3": b"\2"}


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.data())
def test_a_zip_with_flipped_bits_never_escapes_the_contract(scratch: Path, data: st.DataObject) -> None:
    assert_contract_under_flips(scratch, "a.zip", zip_bytes(ABC | {"a.json": b"{}"}), data)


# Names, as `unzip` shows them


def raw_zip(
    name: bytes,
    data: bytes = b"x",
    *,
    flags: int = 0,
    extra: bytes = b"",
    local: bytes | None = None,
    method: int = 0,
    packed: bytes | None = None,
    attributes: int = 0,
    made: int = 0x0314,
) -> bytes:
    """A zip of one member with anything in its headers."""
    packed = data if packed is None else packed
    local = name if local is None else local
    sizes = (zlib.crc32(data), len(packed), len(data))
    header = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 0x5821, *sizes, len(local), len(extra))
    body = header + local + extra + packed
    entry = struct.pack(
        "<4s6H3I5H2I",
        b"PK\1\2",
        made,
        20,
        flags,
        method,
        0,
        0x5821,
        *sizes,
        len(name),
        len(extra),
        0,
        0,
        0,
        attributes,
        0,
    )
    directory = entry + name + extra
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(body), 0)


def unicode_path(stored: bytes, name: str) -> bytes:
    path = name.encode()
    return struct.pack("<2HBI", 0x7075, 5 + len(path), 1, zlib.crc32(stored)) + path


@pytest.mark.parametrize(
    ("stored", "options", "key"),
    [
        ("Frühling/Müller.JPG".encode(), {}, "Frühling/Müller.JPG"),  # as macOS writes it
        ("Frühling/Müller.JPG".encode(), {"flags": 0x800}, "Frühling/Müller.JPG"),
        ("Frühling/Müller.JPG".encode("cp437"), {"made": 20}, "Frühling/Müller.JPG"),
        (b"??/?.JPG", {"extra": unicode_path(b"??/?.JPG", "写真/鳥.JPG")}, "写真/鳥.JPG"),
        (
            b"old.JPG",
            {"extra": unicode_path(b"other", "写真/鳥.JPG")},
            "old.JPG",
        ),  # renamed by a tool that left the field
        (b"a.JPG\0.exe.jpg", {}, "a.JPG"),
        (b"f\xfcr\xff.JPG", {"flags": 0x800}, "f\\xfcr\\xff.JPG"),
        (b"d\\e.JPG", {"made": 20}, "d\\e.JPG"),
    ],
)
def test_a_zip_name_is_decoded_as_it_was_meant(stored: bytes, options: dict[str, Any], key: str, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", raw_zip(stored, **options))
    assert outcome.error is None
    assert outcome.images == {key: b"x"}


@pytest.mark.skipif(not shutil.which("unzip"), reason="needs Info-ZIP")
@pytest.mark.parametrize("options", [{}, {"flags": 0x800}, {"extra": unicode_path(b"?.JPG", "鳥.JPG")}])
def test_names_are_those_of_unzip(options: dict[str, Any], scratch: Path) -> None:
    stored = b"?.JPG" if "extra" in options else "Frühling.JPG".encode()
    outcome = read_bytes(scratch, "a.zip", raw_zip(stored, **options))
    shown = subprocess.run(
        ["unzip", "-Z1", str(scratch / "a.zip")], capture_output=True, env={"LC_ALL": "C.UTF-8"}, check=True
    )
    assert list(outcome.images) == shown.stdout.decode().splitlines()


# What stricter tools refuse


@pytest.mark.parametrize("behind", [1, 70_000, 3_000_000])
def test_bytes_behind_the_end_record_do_no_harm(behind: int, scratch: Path) -> None:
    for padding in (bytes(behind), b"x" * behind):
        outcome = read_bytes(scratch, "a.zip", zip_bytes(ABC) + padding)
        assert outcome.error is None
        assert outcome.images == ABC


def test_bytes_before_the_archive_do_no_harm(scratch: Path) -> None:
    assert read_bytes(scratch, "a.zip", b"#!/bin/sh\n" * 1000 + zip_bytes(ABC)).images == ABC


def test_the_directory_has_the_last_word_on_a_name(scratch: Path) -> None:
    data = raw_zip(b"DCIM/IMG_1.JPG", local=b"IMG_1.JPG")
    assert read_bytes(scratch, "a.zip", data).images == {"DCIM/IMG_1.JPG": b"x"}


def test_an_end_record_in_the_comment_leads_nowhere(scratch: Path) -> None:
    def comment(archive: zipfile.ZipFile) -> None:
        archive.comment = b"PK\5\6" + bytes(range(1, 19)) + b"more"

    assert read_bytes(scratch, "a.zip", zip_bytes(ABC, edit=comment)).images == ABC


@pytest.mark.parametrize("behind", [b"", b"more"])
def test_an_empty_archive_in_the_comment_hides_nothing(behind: bytes, scratch: Path) -> None:
    def comment(archive: zipfile.ZipFile) -> None:
        archive.comment = b"see " + zip_bytes({}) + behind

    outcome = read_bytes(scratch, "a.zip", zip_bytes(ABC, edit=comment))
    assert (outcome.error, outcome.images) == (None, ABC)
    assert read_sound(scratch / "a.zip").images == ABC


def test_a_zip_behind_a_zip_is_read_and_the_first_is_a_break(scratch: Path) -> None:
    first = zip_bytes({"lost.jpg": b"x"})
    outcome = read_bytes(scratch, "a.zip", first + zip_bytes(ABC))
    assert outcome.images == ABC
    assert isinstance(outcome.error, ShardBroken)
    assert f"the {len(first)} bytes before it are a zip themselves" in str(outcome.error)


def test_a_member_that_claims_more_bytes_than_there_are_costs_itself_alone(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", zip_bytes(ABC, edit=lie(compress_size=2**31 - 1)))
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "unreadable", "c.jpg": None}


@pytest.mark.parametrize("mode", [0, 0o100644, 0o010600, 0o060600])
def test_what_was_packed_from_a_pipe_is_a_file(mode: int, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", raw_zip(b"a.jpg", attributes=mode << 16))
    assert (outcome.images, outcome.ignored) == ({"a.jpg": b"x"}, {})
    assert count_images(shard_of(scratch / "a.zip")) == 1


def test_a_link_in_a_zip_is_counted_and_not_followed(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", raw_zip(b"link.jpg", b"IMG_1.JPG", attributes=0o120777 << 16))
    assert (outcome.images, outcome.ignored) == ({}, {"(link or device)": 1})


def test_zip64_is_read(scratch: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as file:
        file.write(b"a" * 1000)
    assert read_bytes(scratch, "a.zip", sink.getvalue()).images == {"a.jpg": b"a" * 1000}
    data = bytearray(zip_bytes(ABC))
    end = data.rindex(b"PK\5\6")
    _, _, _, count, _, size, offset, _ = struct.unpack("<4s4H2IH", data[end:])
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    outcome = read_bytes(scratch, "a.zip", bytes(data[:end]) + wide + locator + short)
    assert (outcome.error, outcome.images) == (None, ABC)


def test_a_split_zip_is_said_once(scratch: Path) -> None:
    data = bytearray(zip_bytes(ABC))
    end = data.rindex(b"PK\5\6")
    data[end + 4 : end + 8] = struct.pack("<2H", 2, 2)
    outcome = read_bytes(scratch, "a.zip", bytes(data))
    assert outcome.records == []
    assert "the last of 3 parts of a split zip" in str(outcome.error)


# Compression


def test_zstandard_is_read(scratch: Path) -> None:
    data = noise(1000) * 3
    packed = pa.compress(data, "zstd", asbytes=True)
    assert read_bytes(scratch, "a.zip", raw_zip(b"a.jpg", data, method=93, packed=packed)).images == {"a.jpg": data}


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_a_compression_that_is_not_read_is_named(method: int, name: str, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", raw_zip(b"a.jpg", method=method))
    assert outcome.error is None
    assert str(outcome.records[0].error).startswith(f"unreadable: packed with {name}, which is not supported")


@pytest.mark.parametrize("method", [8, 12, 14, 93])
def test_no_compression_unfolds_beyond_what_its_header_says(method: int, scratch: Path) -> None:
    bomb = bytes(100 * 2**20)
    if method == 93:
        packed = pa.compress(bomb, "zstd", asbytes=True)
    else:
        whole = zip_bytes({"a": bomb}, method)
        packed = whole[31 : whole.index(b"PK\1\2")]
    path = scratch / "bomb.zip"
    path.write_bytes(raw_zip(b"a.jpg", bytes(1000), method=method, packed=packed))
    before = pa.total_allocated_bytes()
    with memory_below(16 * 2**20):  # 8 MB of it is LZMA's dictionary
        outcome = read_sound(path)
    assert pa.total_allocated_bytes() == before
    assert outcome.kinds == {"a.jpg": "unreadable"}


def test_a_zip_of_zips_that_is_cut_off_is_not_taken_for_the_last_of_them(scratch: Path) -> None:
    inner = zip_bytes(ABC)
    outer = zip_bytes({"a.zip": inner, "b.zip": inner, "c.jpg": noise(5000)}, zipfile.ZIP_STORED)
    cut = outer[: outer.index(b"c.jpg") + 3000]
    outcome = read_bytes(scratch, "a.zip", cut)
    assert outcome.records == []
    assert "cut off" in str(outcome.error)


# Counts


def test_a_directory_that_hides_entries_is_a_break(scratch: Path) -> None:
    data = bytearray(zip_bytes({f"{number}.jpg": bytes([number]) for number in range(6)}))
    third = [match.start() for match in re.finditer(b"PK\1\2", data)][2]
    data[third + 32 : third + 34] = struct.pack("<H", 3 * (46 + 5))  # its comment swallows the other three
    outcome = read_bytes(scratch, "a.zip", bytes(data))
    assert outcome.images == {f"{number}.jpg": bytes([number]) for number in range(3)}
    assert isinstance(outcome.error, ShardBroken)
    assert "3 of the 6 entries" in str(outcome.error)


@pytest.mark.parametrize("count", [2, 4, 0, 500])
def test_an_end_record_that_counts_otherwise_is_a_break(count: int, scratch: Path) -> None:
    data = bytearray(zip_bytes(ABC))
    end = data.rindex(b"PK\5\6")
    data[end + 8 : end + 12] = struct.pack("<2H", count, count)
    outcome = read_bytes(scratch, "a.zip", bytes(data))
    assert outcome.images == ABC
    assert isinstance(outcome.error, ShardBroken)


def test_end_records_without_number_cost_no_time(scratch: Path) -> None:
    reads = 0

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal reads
            reads += 1
            return super().read(size)

    with pytest.raises(ValueError, match="more headers"):
        zip_archive.read_directory(Counted((b"PK\5\6" + bytes(18)).replace(b"\0", b"\xfe") * 100_000))
    assert reads < 500
