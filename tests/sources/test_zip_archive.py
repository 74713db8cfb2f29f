import io
import random
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import (
    assert_contract_under_flips,
    memory_below,
    read_bytes,
    read_sound,
    zip_bytes,
)
from trapline.errors import ShardBroken
from trapline.sources import zip_archive


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
