import gzip
import io
import json
import math
import os
import re
import struct
import subprocess
import tarfile
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count, product
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from archives import sidecar, write_folder, write_parquet, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import S3Server

from pipeline import archives, records, storage
from pipeline.errors import ShardBroken, StorageError, TransientError, TraplineError
from pipeline.records import Record, read
from pipeline.shards import Shard, folder_identity, folder_members, shard_format

IMAGES = {f"DCIM/IMG_{number}.JPG": bytes([number]) * (200 * number) for number in range(1, 6)}


@dataclass
class Outcome:
    records: list[Record]
    error: TraplineError | None
    ignored: Counter[str]

    @property
    def images(self) -> dict[str, bytes | None]:
        return {record.key: record.data for record in self.records}

    @property
    def kinds(self) -> dict[str, str | None]:
        """Kind of error by key."""
        return {record.key: record.error.kind if record.error else None for record in self.records}

    @property
    def metadata(self) -> dict[str, str | None]:
        return {record.key: record.metadata for record in self.records}


def shard_of(url: Path | str) -> Shard:
    url = str(url)
    kind = shard_format(url)
    if kind:
        entry = storage.stat(url)
        return Shard(url, kind, entry.size, entry.identity, "unused")
    return Shard(url, "folder", 0, folder_identity(*folder_members(storage.list_folder(url), Counter())), "unused")


def read_all(source: Path | str | Shard) -> Outcome:
    """Reads to the end or to an error of the three kinds that the contract allows."""
    shard = source if isinstance(source, Shard) else shard_of(source)
    outcome = Outcome([], None, Counter())
    try:
        for record in read(shard, outcome.ignored):
            assert (record.data is None) == (record.error is not None)
            record.key.encode()
            outcome.records.append(record)
    except (ShardBroken, TransientError, StorageError) as error:
        outcome.error = error
    assert outcome.error is None or re.fullmatch(f"{re.escape(shard.uri)}: .+", str(outcome.error)), "not one line"
    assert len(outcome.images) == len(outcome.records), "a key repeats"
    return outcome


def read_sound(source: Path | str) -> Outcome:
    outcome = read_all(source)
    assert outcome.error is None
    return outcome


def read_broken(source: Path | str) -> Outcome:
    outcome = read_all(source)
    assert isinstance(outcome.error, ShardBroken)
    return outcome


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def read_bytes(scratch: Path, name: str, data: bytes) -> Outcome:
    path = scratch / name
    path.write_bytes(data)
    return read_all(path)


# Every format


def write_any(kind: str, folder: Path, members: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_folder(folder / "card", {Path(name).name: data for name, data in members.items()})
    if kind == "tar.gz":
        return write_tar(folder / "a.tar.gz", members, "w:gz")
    writer = {"tar": write_tar, "zip": write_zip, "parquet": write_parquet}[kind]
    return writer(folder / f"a.{kind}", members)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet", "folder"])
def test_every_format_gives_every_image_in_order(kind: str, tmp_path: Path) -> None:
    outcome = read_sound(write_any(kind, tmp_path, IMAGES))
    expected = {Path(name).name: data for name, data in IMAGES.items()} if kind == "folder" else IMAGES
    assert list(outcome.images.items()) == list(expected.items())
    assert not outcome.ignored


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder"])
def test_sidecars_become_metadata_and_junk_is_counted(kind: str, tmp_path: Path) -> None:
    members = {
        "a.json": sidecar(camera=1),
        "a.jpg": b"a",
        "b.jpg": b"b",
        "b.jpg.json": b'{ "verbatim": "\xc3\xa4" }',
        "c.jpg": b"c",
        "d.json": b"{}",
        "Thumbs.db": b"x",
        "._c.jpg": b"x",
        "c.DAT": b"x",
    }
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.images == {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"}
    assert outcome.metadata == {"a.jpg": '{"camera": 1}', "b.jpg": '{ "verbatim": "ä" }', "c.jpg": None}
    assert outcome.ignored == {"Thumbs.db": 1, "._*": 1, ".dat": 1}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "folder"])
def test_an_image_beyond_the_limit_costs_itself_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_IMAGE_BYTES", 1000)
    monkeypatch.setattr(records, "MAX_SIDECAR_BYTES", 100)
    members = {"a.jpg": b"a", "b.jpg": bytes(2**20), "c.jpg": b"c", "c.json": bytes(101), "d.jpg": bytes(1000)}
    outcome = read_sound(write_any(kind, tmp_path, members))
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "too_large", "c.jpg": None, "d.jpg": None}
    assert outcome.metadata["c.jpg"] is None
    assert outcome.ignored == {"(sidecar too large)": 1}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.parquet"])
@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b", b"PK", b"\0" * 511, b"not an archive at all\n" * 100])
def test_what_is_no_archive_is_a_broken_shard(name: str, data: bytes, scratch: Path) -> None:
    outcome = read_bytes(scratch, name, data)
    assert isinstance(outcome.error, ShardBroken)
    assert outcome.records == []


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_a_shard_that_changed_since_it_was_listed_is_to_be_tried_again(kind: str, tmp_path: Path) -> None:
    shard = shard_of(write_any(kind, tmp_path, IMAGES))
    write_any(kind, tmp_path, {"other.jpg": b"x"})
    outcome = read_all(shard)
    assert isinstance(outcome.error, TransientError)
    assert outcome.records == []


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_a_shard_that_is_overwritten_as_it_is_read_is_to_be_tried_again(kind: str, tmp_path: Path) -> None:
    members = {f"{number}.jpg": os.urandom(100_000) for number in range(30)}
    path = write_any(kind, tmp_path, members)
    reading = read(shard_of(path), Counter())
    next(reading)
    path.write_bytes(b"truncated")
    with pytest.raises(TransientError):
        list(reading)


def test_a_reader_that_is_left_early_closes_its_file(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", IMAGES)
    reading = read(shard_of(path), Counter())
    next(reading)
    assert str(path) in open_files()
    reading.close()
    assert str(path) not in open_files()


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


# Tar


def tar_bytes(members: dict[str, bytes], **options: Any) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def end_of_data(tar: bytes) -> int:
    """Where the end mark starts: two blocks of zeros."""
    return len(tar.rstrip(b"\0")) + -len(tar.rstrip(b"\0")) % 512


SAMPLES = {
    f"{'long/' * (30 * (number % 2))}{number}.{suffix}": bytes([number]) * (number * 150)
    for number in range(1, 6)
    for suffix in ("jpg", "json")
}


def is_prefix_of(outcome: Outcome, sound: Outcome) -> bool:
    """The last image may have lost its sidecar, which comes after it."""
    part, whole = list(outcome.images.items()), list(sound.images.items())
    return part == whole[: len(part)] and outcome.records[:-1] == sound.records[: max(0, len(part) - 1)]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_tar_cut_anywhere_gives_what_came_before_and_breaks(format: int, scratch: Path) -> None:
    data = tar_bytes(SAMPLES, format=format)
    end = end_of_data(data)
    sound = read_bytes(scratch, "a.tar", data)
    assert sound.error is None
    assert len(sound.records) == 5
    found = set()
    for cut in {*range(0, end, 151), *range(0, end + 1, 512), *range(511, end + 512, 512)}:
        outcome = read_bytes(scratch, "a.tar", data[:cut])
        assert isinstance(outcome.error, ShardBroken)
        assert is_prefix_of(outcome, sound)
        found.add(len(outcome.records))
    assert found == {0, 1, 2, 3, 4, 5}
    assert read_bytes(scratch, "a.tar", data[: end + 512]) == sound


def test_a_gzipped_tar_cut_anywhere_gives_what_came_before_and_breaks(scratch: Path) -> None:
    members = {name: os.urandom(len(data)) for name, data in SAMPLES.items()}
    data = gzip.compress(tar_bytes(members), 1)
    sound = read_bytes(scratch, "a.tar.gz", data)
    found = set()
    for cut in {*range(0, len(data), 53), len(data) - 1}:
        outcome = read_bytes(scratch, "a.tar.gz", data[:cut])
        assert isinstance(outcome.error, ShardBroken)
        assert is_prefix_of(outcome, sound)
        found.add(len(outcome.records))
    assert found >= {0, 1, 2, 3, 4, 5}


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.data())
def test_a_cut_tar_gives_a_prefix_whatever_it_holds(scratch: Path, data: st.DataObject) -> None:
    names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120).map(lambda stem: f"{stem}.jpg")
    members = data.draw(st.dictionaries(names, st.binary(max_size=1500), min_size=1, max_size=6))
    format = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    tar = tar_bytes(members, format=format)
    sound = read_bytes(scratch, "a.tar", tar)
    assert sound.error is None
    outcome = read_bytes(scratch, "a.tar", tar[: data.draw(st.integers(0, end_of_data(tar) + 511))])
    assert isinstance(outcome.error, ShardBroken)
    assert is_prefix_of(outcome, sound)


def test_data_behind_the_end_mark_is_not_lost_in_silence(scratch: Path) -> None:
    one, two = tar_bytes({"a.jpg": b"a"}), tar_bytes({"b.jpg": b"b"})
    outcome = read_bytes(scratch, "a.tar", one + two)
    assert outcome.images == {"a.jpg": b"a"}
    assert isinstance(outcome.error, ShardBroken)
    assert "end mark" in str(outcome.error)


def test_a_gzipped_tar_is_checked_to_its_last_byte(scratch: Path) -> None:
    data = bytearray(gzip.compress(tar_bytes({"a.jpg": b"a"})))
    data[-5] ^= 1  # in the checksum
    outcome = read_bytes(scratch, "a.tar.gz", bytes(data))
    assert outcome.images == {"a.jpg": b"a"}
    assert isinstance(outcome.error, ShardBroken)


def test_an_empty_tar_is_sound(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.tar", tar_bytes({}))
    assert (outcome.records, outcome.error) == ([], None)


def test_a_gzipped_tar_is_known_by_its_bytes(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.tar", gzip.compress(tar_bytes(IMAGES)))
    assert outcome.images == IMAGES


HOSTILE_NAMES = [
    "../../etc/a.jpg",
    "/etc/b.jpg",
    "c.jpg",
    "c.jpg",
    "./c.jpg",
    "d\\e.jpg",
    "f\ng.jpg",
    f"{'h/' * 2040}h.jpg",
    "f\udcfcr.jpg",
    "#?%20.jpg",
    "c.jpg",
]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_hostile_names_are_keys_and_nothing_more(format: int, scratch: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format, errors="surrogateescape") as tar:
        for number, name in enumerate([*HOSTILE_NAMES, "", "/"]):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(bytes([number])))
    outcome = read_bytes(scratch, "a.tar", sink.getvalue())
    assert outcome.error is None
    expected = [*HOSTILE_NAMES[:3], "c.jpg@2", *HOSTILE_NAMES[4:8], "f\\xfcr.jpg", HOSTILE_NAMES[9], "c.jpg@3"]
    assert outcome.images == {name: bytes([number]) for number, name in enumerate(expected)}


def test_links_and_devices_are_counted_and_not_followed(scratch: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        tar.addfile(tarfile.TarInfo("empty.jpg"))
    outcome = read_bytes(scratch, "a.tar", sink.getvalue())
    assert outcome.error is None
    assert outcome.images == {"empty.jpg": b""}
    assert outcome.ignored == {"(link or device)": 5}


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_a_sparse_file_costs_itself_alone(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with (tmp_path / "b.jpg").open("wb") as file:
        for place in range(40):
            file.seek(place * 2**20)
            file.write(b"b")
    (tmp_path / "c.jpg").write_bytes(b"c")
    command = ["tar", "--create", "--sparse", *options, "--file=x.tar", "a.jpg", "b.jpg", "c.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "x.tar").stat().st_size < 2**20
    outcome = read_sound(tmp_path / "x.tar")
    assert outcome.kinds == {"a.jpg": None, "b.jpg": "unreadable", "c.jpg": None}


def raw_header(name: bytes, size: int | bytes, kind: bytes = b"0") -> bytes:
    """A tar header with anything in it, and a sound checksum."""
    number = size if isinstance(size, bytes) else b"%011o\0" % size
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = number
    header[136:148] = b"%011o\0" % 0
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


BEFORE = raw_header(b"before.jpg", 1) + padded(b"x")
AFTER = raw_header(b"after.jpg", 1) + padded(b"x") + bytes(1024)
NEGATIVE = b"\xff" * 10 + struct.pack(">h", -512)  # leads back to the header that says so


def pax(*pairs: str) -> bytes:
    lines = []
    for pair in pairs:
        length = next(n for n in count(len(pair)) if len(f"{n} {pair}\n".encode()) == n)
        lines.append(f"{length} {pair}\n".encode())
    return b"".join(lines)


GARBAGE = {
    "noise": b"\xff\x00 garbage",
    "wrong length": b"9999999 path=x.jpg\n",
    "no length": b"0 path=x.jpg\n",
    "length of 5000 digits": b"1" * 5000 + b" path=x.jpg\n",
    "digits only": b"1" * 200_000,
    "no UTF-8": b"22 path=\xff\xfe\xfd\xfc.jpg\n\n\n",
    "charset": b"25 hdrcharset=\xff\xff\xff\xff\xff\xff\xff\xff\xff\n",
    "negative size": pax("size=-100000"),
    "huge size": pax("size=99999999999999999999999"),
    "no size": pax("size=many"),
    "sparse map of words": pax("GNU.sparse.map=a,b"),
    "sparse map without size": pax("GNU.sparse.map=0,1"),
    "sparse size of words": pax("GNU.sparse.size=many"),
    "sparse, cut": pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9"),
    "NUL in name": pax("path=a\0b.jpg"),
}


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_headers_is_survived_in_no_time(garbage: str, kind: bytes, scratch: Path) -> None:
    data = GARBAGE[garbage]
    started = time.monotonic()
    outcome = read_bytes(scratch, "a.tar", BEFORE + raw_header(b"pax", len(data), kind) + padded(data) + AFTER)
    assert time.monotonic() - started < 3
    assert outcome.records[0] == Record("before.jpg", b"x")
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)
    assert len(outcome.records) == 2 or outcome.error or outcome.ignored


@pytest.mark.parametrize("kind", [b"0", b"5", b"x", b"g", b"L", b"S", b"?"])
@pytest.mark.parametrize("size", [NEGATIVE, b"\x80" + b"\xff" * 11, b"not a number", bytes(12)])
def test_impossible_sizes_neither_hang_nor_crash(kind: bytes, size: bytes, scratch: Path) -> None:
    data = BEFORE + raw_header(b"evil.jpg", size, kind) + padded(b"x") + AFTER
    outcome = read_bytes(scratch, "a.tar", data)
    assert outcome.records[0] == Record("before.jpg", b"x")
    assert len(outcome.images.get("evil.jpg") or b"") <= 1
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)


BOMB = 64 * 2**20
SPARSE_MAP = pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9", "GNU.sparse.name=x.jpg")
BOMBS = {
    "PAX header": raw_header(b"pax", BOMB, b"x") + bytes(BOMB),
    "long name": raw_header(b"name", BOMB, b"L") + b"n" * BOMB,
    "chain of long names": (raw_header(b"name", 512, b"L") + b"n" * 512) * (BOMB // 2**13),
    "sparse map": raw_header(b"pax", len(SPARSE_MAP), b"x")
    + padded(SPARSE_MAP)
    + raw_header(b"x.jpg", BOMB)
    + padded(b"%d\n" % BOMB)
    + b"1\n" * (BOMB // 2),
    "old sparse map": raw_header(b"x.jpg", 512, b"S")[:482].ljust(512, b"\1")
    + (b"1".ljust(12, b"\0") * 43)[:512] * (BOMB // 2**9),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_headers_is_refused_before_it_fills_the_memory(bomb: str, scratch: Path) -> None:
    header = BOMBS[bomb][:512]
    checked = bytearray(header)
    checked[148:156] = b" " * 8
    checked[148:156] = b"%06o\0 " % sum(checked)
    path = scratch / "bomb.tar.gz"
    path.write_bytes(gzip.compress(BEFORE + bytes(checked) + BOMBS[bomb][512:] + AFTER, 1))
    with memory_below(8 * 2**20):
        outcome = read_broken(path)
    assert outcome.images == {"before.jpg": b"x"}


def test_attributes_for_all_members_do_not_pile_up(scratch: Path) -> None:
    def member(number: int) -> bytes:
        attribute = pax(f"attribute{number}=" + "x" * 2000)
        return raw_header(b"pax", len(attribute), b"g") + padded(attribute) + raw_header(b"name", 0)

    path = scratch / "a.tar.gz"
    path.write_bytes(gzip.compress(b"".join(map(member, range(500))) + AFTER, 1))
    with memory_below(3 * 2**19):
        assert read_sound(path).images == {"after.jpg": b"x"}


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), min_size=1, max_size=8), st.booleans(), st.booleans()
)
def test_a_tar_with_flipped_bits_never_escapes_the_contract(
    scratch: Path, flips: list[tuple[int, int]], mend: bool, zipped: bool
) -> None:
    data = bytearray(FLIPPED_TAR)
    for place, bits in flips:
        data[place % len(data)] ^= bits
    if mend:  # so that what lies behind the checksum is reached
        for start in range(0, len(data), 512):
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    name, content = ("a.tar.gz", gzip.compress(data, 1)) if zipped else ("a.tar", bytes(data))
    outcome = read_bytes(scratch, name, content)
    assert len(outcome.records) <= 6
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)


FLIPPED_TAR = tar_bytes({f"{'d' * 150 * (n % 2)}{n}.jpg": b"x" * n for n in range(4)}, format=tarfile.PAX_FORMAT)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.data())
def test_a_gzipped_tar_with_flipped_bits_never_escapes_the_contract(scratch: Path, data: st.DataObject) -> None:
    assert_contract_under_flips(scratch, "a.tar.gz", gzip.compress(FLIPPED_TAR), data)


def assert_contract_under_flips(scratch: Path, name: str, sound: bytes, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.tuples(st.integers(0, len(sound) - 1), st.integers(1, 255)), min_size=1, max_size=6))
    content = bytearray(sound)
    for place, bits in flips:
        content[place] ^= bits
    outcome = read_bytes(scratch, name, bytes(content))
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)


def test_many_members_of_one_name_are_not_held(scratch: Path) -> None:
    with tarfile.open(scratch / "same.tar", "w") as tar:
        for _ in range(60):
            info = tarfile.TarInfo("a.jpg")
            info.size = 2**20
            tar.addfile(info, io.BytesIO(bytes(2**20)))
    with memory_below(20 * 2**20):
        count = sum(1 for _ in read(shard_of(scratch / "same.tar"), Counter()))
    assert count == 60


# Zip


def zip_bytes(
    members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, edit: Callable[[zipfile.ZipFile], None] | None = None
) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        if edit:  # of the directory, which is written at the end
            edit(archive)
    return sink.getvalue()


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
    data = bytearray(zip_bytes({name: os.urandom(500) for name in ABC}, method))
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
        (lie(compress_type=99), "unreadable"),
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
def test_a_zip_compression_without_bound_is_refused(method: int, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.zip", zip_bytes({"a.jpg": bytes(1000)}, method))
    assert outcome.kinds == {"a.jpg": "unreadable"}


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
    monkeypatch.setattr(archives, "_MAX_ZIP_DIRECTORY_BYTES", 1000)
    data = zip_bytes({f"{number}.jpg": b"x" for number in range(100)})
    outcome = read_bytes(scratch, "a.zip", data)
    assert isinstance(outcome.error, ShardBroken)
    assert "bytes of headers" in str(outcome.error)


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


# Parquet


def parquet_bytes(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([b"a", b"b"], pa.large_binary()),
        pa.array([b"a", b"b"], pa.binary()).dictionary_encode(),
        pa.array([{"bytes": b"a", "path": "0.jpg"}, {"bytes": b"b", "path": None}]),
    ],
    ids=["binary", "large", "dictionary", "struct"],
)
def test_an_image_column_is_found_by_its_type(column: pa.Array, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"picture": column, "file_name": ["0.jpg", "1.jpg"]}))
    assert outcome.error is None
    assert outcome.images == {"0.jpg": b"a", "1.jpg": b"b"}


def test_an_image_column_is_found_by_its_name_among_several(scratch: Path) -> None:
    columns = {"thumbnail": [b"t"], "image": [b"i"], "mask": [{"bytes": b"m", "path": "m"}], "n": [1]}
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(columns))
    assert outcome.images == {"row/00000000": b"i"}
    assert outcome.metadata == {"row/00000000": '{"n": 1}'}


def test_the_other_columns_become_metadata(scratch: Path) -> None:
    table = pa.table(
        {
            "image": [b"x"],
            "path": ["a.jpg"],
            "when": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "date": [datetime(2024, 5, 1)],
            "nan": [math.nan],
            "box": [[0.5, 1.0]],
            "name": ["ä"],
            "text": pa.array([b"\xff"], pa.binary()).view(pa.string()),
        }
    )
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(table))
    (record,) = outcome.records
    assert record.key == "a.jpg"
    assert json.loads(record.metadata or "") == {
        "when": "2023-11-14 22:13:20.123456789",
        "date": "2024-05-01 00:00:00",
        "nan": None,
        "box": [0.5, 1.0],
        "name": "ä",
        "text": None,
    }


def test_a_metadata_column_is_taken_verbatim(scratch: Path) -> None:
    data = parquet_bytes({"image": [b"x", b"y"], "metadata": ['{ "a":1}', None], "n": [1, 2]})
    outcome = read_bytes(scratch, "a.parquet", data)
    assert list(outcome.metadata.values()) == ['{ "a":1}', '{"metadata": null, "n": 2}']


def test_rows_that_share_a_path_get_ordinals_that_are_free(scratch: Path) -> None:
    data = parquet_bytes({"image": [b"0", b"1", b"2", b"3"], "path": ["a", "a", "a@2", "a"]})
    assert read_bytes(scratch, "a.parquet", data).images == {"a": b"0", "a@2": b"1", "a@2@2": b"2", "a@3": b"3"}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, b"b"], pa.binary()),
        pa.array([None, {"bytes": b"b", "path": "x"}]),
        pa.array([{"bytes": None, "path": "gone.jpg"}, {"bytes": b"b", "path": "x"}]),
    ],
    ids=["cell", "struct", "bytes"],
)
def test_a_null_image_is_a_failed_row(column: pa.Array, scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"image": column}))
    assert outcome.error is None
    assert [record.error.kind if record.error else None for record in outcome.records] == ["null", None]


def test_a_parquet_image_beyond_the_limit_costs_itself_alone(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_IMAGE_BYTES", 1000)
    monkeypatch.setattr(records, "MAX_SIDECAR_BYTES", 100)
    data = parquet_bytes({"image": [b"a", bytes(1001), b"c"], "note": ["", "", "n" * 101]})
    outcome = read_bytes(scratch, "a.parquet", data)
    assert list(outcome.kinds.values()) == [None, "too_large", None]
    assert outcome.records[2].metadata is None
    assert outcome.ignored == {"(sidecar too large)": 1}


@pytest.mark.parametrize(
    "columns", [{"image": ["a"]}, {"image": [1]}, {"n": [1], "x": [[b"a"]]}, {"s": [{"path": "x"}]}]
)
def test_a_parquet_file_without_images_is_named(columns: dict[str, Any], scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes(columns))
    assert isinstance(outcome.error, ShardBroken)
    assert next(iter(columns)) in str(outcome.error)


def test_a_parquet_file_of_no_rows_is_sound(scratch: Path) -> None:
    outcome = read_bytes(scratch, "a.parquet", parquet_bytes({"image": pa.array([], pa.binary())}))
    assert (outcome.records, outcome.error) == ([], None)


ROWS = {
    "image": [{"bytes": bytes([n]) * 300, "path": f"{n}.jpg"} for n in range(20)],
    "site": [f"s{n}" for n in range(20)],
}


def test_a_parquet_file_cut_anywhere_is_broken(scratch: Path) -> None:
    data = parquet_bytes(ROWS, row_group_size=5)
    for cut in range(0, len(data), 41):
        outcome = read_bytes(scratch, "a.parquet", data[:cut])
        assert isinstance(outcome.error, ShardBroken)
        assert outcome.records == []


def test_rows_before_damage_in_a_parquet_file_are_kept(scratch: Path) -> None:
    data = bytearray(parquet_bytes(ROWS, row_group_size=5))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(2).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    outcome = read_bytes(scratch, "a.parquet", bytes(data))
    assert isinstance(outcome.error, ShardBroken)
    assert list(outcome.images) == [f"{number}.jpg" for number in range(10)]


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.data())
def test_a_parquet_file_with_flipped_bits_never_escapes_the_contract(scratch: Path, data: st.DataObject) -> None:
    assert_contract_under_flips(scratch, "a.parquet", parquet_bytes(ROWS, row_group_size=5), data)


def test_a_parquet_row_group_is_not_read_whole(scratch: Path) -> None:
    path = scratch / "big.parquet"
    rows = 64
    with pq.ParquetWriter(path, pa.schema({"image": pa.binary()}), compression="none", write_batch_size=1) as writer:
        writer.write_table(pa.table({"image": [os.urandom(2**20) for _ in range(rows)]}), row_group_size=rows)
    before, most = pa.total_allocated_bytes(), 0
    with memory_below(12 * 2**20):
        for record in read(shard_of(path), Counter()):
            assert len(record.data or b"") == 2**20
            most = max(most, pa.total_allocated_bytes() - before)
            rows -= 1
    assert rows == 0
    assert most < 12 * 2**20


# Folders


def test_only_what_lies_directly_in_a_folder_is_of_its_shard(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.jpg": b"a", "sub/b.jpg": b"b", "c.tar": b"c", "f\udcfcr.jpg": b"f"})
    assert read_sound(tmp_path).images == {"a.jpg": b"a", "f\\xfcr.jpg": b"f"}


def test_more_images_than_are_fetched_at_a_time_all_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{number:03d}.jpg": bytes(number) for number in range(100)}
    write_folder(tmp_path, members)
    assert read_sound(tmp_path).images == members
    monkeypatch.setattr(records, "_HELD_BYTES", 50)
    assert read_sound(tmp_path).images == members


def added(folder: Path) -> None:
    (folder / "new.jpg").write_bytes(b"new")


def removed(folder: Path) -> None:
    (folder / "098.jpg").unlink()


def replaced(folder: Path) -> None:
    (folder / "000.jpg").write_bytes(b"new")


def annotated(folder: Path) -> None:
    (folder / "000.json").write_bytes(b"{}")


@pytest.mark.parametrize("change", [added, removed, replaced, annotated])
def test_a_folder_that_changes_is_to_be_tried_again(change: Callable[[Path], None], tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{number:03d}.jpg": b"x" for number in range(100)})
    shard = shard_of(tmp_path)
    reading = read(shard, Counter())
    next(reading)
    change(tmp_path)
    with pytest.raises(TransientError, match=str(tmp_path)):
        list(reading)
    assert isinstance(read_all(shard).error, TransientError)


def test_a_folder_is_not_changed_by_junk(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{number:03d}.jpg": b"x" for number in range(100)})
    reading = read(shard_of(tmp_path), Counter())
    next(reading)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert len(list(reading)) == 99


# S3, and memory


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are asked of S3."""
    ranges: list[tuple[int, int]] = []
    fetch = s3fs.core.S3File._fetch_range

    def spy(file: s3fs.core.S3File, start: int, end: int) -> bytes:
        ranges.append((start, end))
        return fetch(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", spy)
    return ranges


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet", "folder"])
def test_every_format_is_read_from_s3(kind: str, bucket: str, tmp_path: Path, s3: S3Server) -> None:
    path = write_any(kind, tmp_path, IMAGES)
    s3.filesystem().put(str(path), f"{bucket}/{path.name}", recursive=True)
    assert read_sound(f"{bucket}/{path.name}").records == read_sound(path).records


def test_a_tar_on_s3_is_streamed(bucket: str, fetched: list[tuple[int, int]]) -> None:
    members = {f"{number}.jpg": bytes([number]) * 2**20 for number in range(24)}
    data = tar_bytes(members)
    storage.put(f"{bucket}/a.tar", data)
    reading = read(shard_of(f"{bucket}/a.tar"), Counter())
    next(reading)
    assert sum(end - start for start, end in fetched) <= 8 * 2**20
    assert len(list(reading)) == 23
    assert sum(min(end, len(data)) - start for start, end in fetched) == len(data)
    assert fetched == sorted(fetched)


def test_videos_in_a_tar_on_s3_are_skipped(bucket: str, fetched: list[tuple[int, int]]) -> None:
    members = {"a.jpg": b"a", "a.avi": bytes(30 * 2**20), "b.jpg": b"b"}
    storage.put(f"{bucket}/a.tar", tar_bytes(members))
    outcome = read_sound(f"{bucket}/a.tar")
    assert outcome.images == {"a.jpg": b"a", "b.jpg": b"b"}
    assert outcome.ignored == {".avi": 1}
    assert sum(end - start for start, end in fetched) <= 16 * 2**20


def test_sidecars_at_the_far_end_of_a_zip_on_s3_cost_no_second_reading(
    bucket: str, fetched: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_STREAM", {**storage._STREAM, "block_size": 2**16})
    pictures = {f"{number}.jpg": os.urandom(50_000) for number in range(40)}
    texts = {f"{number}.json": sidecar(number=number) for number in range(40)}
    data = zip_bytes(pictures | texts, zipfile.ZIP_STORED)
    storage.put(f"{bucket}/a.zip", data)
    outcome = read_sound(f"{bucket}/a.zip")
    assert outcome.images == pictures
    assert outcome.metadata["7.jpg"] == '{"number": 7}'
    assert sum(end - start for start, end in fetched) < 1.2 * len(data)


@pytest.fixture
def large_on_s3(kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shard of many ranges."""
    monkeypatch.setattr(storage, "_STREAM", {**storage._STREAM, "block_size": 2**16})
    path = write_any(kind, tmp_path, {f"{number}.jpg": os.urandom(100_000) for number in range(8)})
    if kind == "parquet":
        pq.write_table(pq.read_table(path), path, row_group_size=1)
    storage.put(f"{bucket}/{path.name}", path.read_bytes())
    return f"{bucket}/{path.name}"


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_an_object_deleted_as_it_is_read_is_not_found(kind: str, large_on_s3: str, s3: S3Server) -> None:
    reading = read(shard_of(large_on_s3), Counter())
    next(reading)
    s3.filesystem().rm(large_on_s3)
    with pytest.raises(StorageError, match="not found"):
        list(reading)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_an_object_replaced_as_it_is_read_is_to_be_tried_again(kind: str, large_on_s3: str) -> None:
    reading = read(shard_of(large_on_s3), Counter())
    next(reading)
    storage.put(large_on_s3, storage.read_many([large_on_s3])[0][::-1])
    with pytest.raises(TransientError):
        list(reading)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "parquet"])
def test_passing_trouble_of_the_store_is_no_break_of_the_shard(
    kind: str, large_on_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shard_of(large_on_s3)
    fetch = s3fs.core.S3File._fetch_range
    troubles = [OSError("SlowDown"), ConnectionResetError(), aiohttp.ClientPayloadError("cut")]
    for trouble, at in product(troubles, [0, 1, 6]):
        requests = count()

        def fail_once(file: s3fs.core.S3File, start: int, end: int) -> bytes:
            if next(requests) == at:  # noqa: B023  # called in this turn of the loop only
                raise trouble  # noqa: B023
            return fetch(file, start, end)

        monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", fail_once)
        assert isinstance(read_all(shard).error, TransientError)


def test_a_large_tar_fits_in_little_memory(scratch: Path) -> None:
    path = scratch / "large.tar"
    block = os.urandom(2**20)
    with tarfile.open(path, "w") as tar:
        for number in range(200):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(block)
            tar.addfile(info, io.BytesIO(block))
    with memory_below(8 * 2**20):
        assert sum(1 for _ in read(shard_of(path), Counter())) == 200
    path.unlink()
