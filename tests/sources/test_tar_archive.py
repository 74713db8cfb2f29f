import gzip
import io
import random
import struct
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import (
    Outcome,
    assert_contract_under_flips,
    memory_below,
    read_broken,
    read_bytes,
    read_sound,
    shard_of,
    tar_bytes,
)
from trapline.errors import ShardBroken
from trapline.sources import limits, tar_archive
from trapline.sources.counts import count_images
from trapline.sources.records import Record, read


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def noise(size: int) -> bytes:
    """Bytes that no compression makes shorter."""
    return random.Random(size).randbytes(size)


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
    members = {name: noise(len(data)) for name, data in SAMPLES.items()}
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
    outcome = read_bytes(scratch, "a.tar", gzip.compress(tar_bytes({"a.jpg": b"a"})))
    assert outcome.images == {"a.jpg": b"a"}


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
    assert outcome.images == {"1.jpg": None, "empty.jpg": b""}
    assert str(outcome.records[0].error) == (
        "unreadable: a hard link to '/etc/passwd', which the tar does not hold before it"
    )
    assert outcome.ignored == {"(link or device)": 4}


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
@pytest.mark.parametrize("packed", [False, True])
def test_sparse_files_and_links_to_them_are_read_with_their_holes(
    options: list[str], packed: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with (tmp_path / "b.jpg").open("wb") as file:
        for place in range(40):
            file.seek(place * 2**16)
            file.write(b"b")
        file.truncate(40 * 2**16)
    (tmp_path / "c.jpg").hardlink_to(tmp_path / "b.jpg")
    (tmp_path / "d.jpg").write_bytes(b"d")
    name = "x.tar.gz" if packed else "x.tar"
    command = ["tar", "--create", "--auto-compress", "--sparse", *options, f"--file={name}"]
    subprocess.run([*command, "a.jpg", "b.jpg", "c.jpg", "d.jpg"], cwd=tmp_path, check=True)
    assert (tmp_path / name).stat().st_size < 2**18
    with_holes = (tmp_path / "b.jpg").read_bytes()
    outcome = read_sound(tmp_path / name)
    assert outcome.images == {"a.jpg": b"a", "b.jpg": with_holes, "c.jpg": with_holes, "d.jpg": b"d"}


@pytest.mark.parametrize("map_of_parts", ["5,1,0,1", "0,-1,3,2", "0,1,9,2", "0,99"])
def test_a_sparse_file_with_a_damaged_map_costs_itself_alone(map_of_parts: str, scratch: Path) -> None:
    attributes = pax(f"GNU.sparse.map={map_of_parts}", "GNU.sparse.size=10", "GNU.sparse.name=x.jpg")
    data = raw_header(b"pax", len(attributes), b"x") + padded(attributes) + raw_header(b"y", 2) + padded(b"yy")
    outcome = read_bytes(scratch, "a.tar", BEFORE + data + AFTER)
    assert outcome.kinds == {"before.jpg": None, "x.jpg": "unreadable", "after.jpg": None}


def test_a_hard_link_leads_to_where_its_target_is_unpacked(scratch: Path) -> None:
    def link(name: bytes, target: bytes) -> bytes:
        header = bytearray(raw_header(name, 0, b"1"))
        header[157 : 157 + len(target)] = target
        mend(header)
        return bytes(header)

    targets = [b"x/a.jpg", b"./x/a.jpg", b"/x/a.jpg", b"x//a.jpg", b"././x/./a.jpg"]
    links = b"".join(link(b"%d.jpg" % number, target) for number, target in enumerate(targets))
    outcome = read_bytes(scratch, "a.tar", raw_header(b"./x/a.jpg", 1) + padded(b"a") + links + AFTER)
    assert {**outcome.images, "after.jpg": b"a"} == dict.fromkeys(outcome.images, b"a")
    assert len(outcome.images) == 1 + len(targets) + 1


def test_files_of_unknown_types_are_files_and_labels_are_none(scratch: Path) -> None:
    data = b"".join(
        raw_header(name, 1, kind) + padded(b"z")
        for name, kind in ((b"z.jpg", b"Z"), (b"v.jpg", b"V"), (b"a.jpg", b"A"))
    )
    outcome = read_bytes(scratch, "a.tar", BEFORE + data + AFTER)
    assert outcome.images == {"before.jpg": b"x", "z.jpg": b"z", "after.jpg": b"x"}
    assert count_images(shard_of(scratch / "a.tar")) == 3
    assert not outcome.ignored


def test_an_empty_value_of_a_pax_header_says_nothing(scratch: Path) -> None:
    attributes = pax("path=")
    data = raw_header(b"pax", len(attributes), b"x") + padded(attributes) + raw_header(b"p.jpg", 1) + padded(b"p")
    assert read_bytes(scratch, "a.tar", BEFORE + data + AFTER).images["p.jpg"] == b"p"
    assert count_images(shard_of(scratch / "a.tar")) == 3


@pytest.mark.parametrize("field", [slice(100, 108), slice(108, 116), slice(116, 124), slice(136, 148), slice(329, 337)])
def test_a_malformed_owner_or_time_costs_nothing(field: slice, scratch: Path) -> None:
    header = bytearray(raw_header(b"p.jpg", 1))
    header[field] = b"z" * (field.stop - field.start)
    unchecked = bytes(header)
    mend(header)
    outcome = read_bytes(scratch, "a.tar", BEFORE + bytes(header) + padded(b"p") + AFTER)
    assert outcome.error is None
    assert outcome.images["p.jpg"] == b"p"
    # It does not excuse a wrong checksum.
    outcome = read_bytes(scratch, "a.tar", BEFORE + unchecked + padded(b"p") + AFTER)
    assert "bad checksum" in str(outcome.error)


@pytest.mark.parametrize("which", ["a name with a line break", "two headers", "a folder of old tars"])
def test_what_is_read_is_what_is_counted(which: str, scratch: Path) -> None:
    def attributes(text: str) -> bytes:
        return raw_header(b"pax", len(pax(text)), b"x") + padded(pax(text))

    before = {
        "a name with a line break": attributes("path=a\nb.jpg") + raw_header(b"p.jpg", 1),
        "two headers": attributes("size=1") + attributes("mtime=1.5") + raw_header(b"p.jpg", 0),
        "a folder of old tars": raw_header(b"folder.jpg/", 0, b"\0") + raw_header(b"p.jpg", 1),
    }
    outcome = read_bytes(scratch, "a.tar", BEFORE + before[which] + padded(b"p") + AFTER)
    assert outcome.error is None
    assert len(outcome.records) == 3
    assert count_images(shard_of(scratch / "a.tar")) == 3


def test_a_tar_of_zeros_is_empty_up_to_the_size_of_an_empty_one(scratch: Path) -> None:
    assert read_bytes(scratch, "a.tar", bytes(10_240)).records == []
    outcome = read_bytes(scratch, "a.tar", bytes(10_752))
    assert str(outcome.error).endswith("a.tar: is nothing but zeros, not tar; upload it again or rename it")
    outcome = read_bytes(scratch, "a.tar.gz", gzip.compress(bytes(10_752)))
    assert isinstance(outcome.error, ShardBroken)


def raw_header(name: bytes, size: int | bytes, kind: bytes = b"0", is_continued: bool = False) -> bytes:
    """A tar header with anything in it, and a sound checksum."""
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    header[136:148] = b"%011o\0" % 0
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[482] = is_continued  # of sparse files: whether another block of their map follows
    mend(header)
    return bytes(header)


def mend(header: bytearray) -> None:
    """Put the checksum right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)


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
SPARSE = pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9", "GNU.sparse.name=x.jpg")
BOMBS: dict[str, Callable[[], bytes]] = {
    "PAX header": lambda: raw_header(b"pax", BOMB, b"x") + bytes(BOMB),
    "long name": lambda: raw_header(b"name", BOMB, b"L") + b"n" * BOMB,
    "chain of long names": lambda: (raw_header(b"name", 2**16, b"L") + b"n" * 2**16) * 1000,
    "sparse map": lambda: (
        raw_header(b"pax", len(SPARSE), b"x")
        + padded(SPARSE)
        + raw_header(b"x.jpg", BOMB)
        + b"%d\n" % BOMB
        + (b"9" * 400 + b"\n") * (BOMB // 800)
    ),
    "old sparse map": lambda: (
        raw_header(b"x.jpg", 512, b"S", is_continued=True) + (b"1".ljust(12, b"\0") * 43)[:512] * (BOMB // 2**9)
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_headers_is_refused_before_it_fills_the_memory(bomb: str, scratch: Path) -> None:
    path = scratch / "bomb.tar.gz"
    path.write_bytes(gzip.compress(BEFORE + BOMBS[bomb]() + AFTER, 1))
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
    scratch: Path, flips: list[tuple[int, int]], mended: bool, zipped: bool
) -> None:
    data = bytearray(FLIPPED_TAR)
    for place, bits in flips:
        data[place % len(data)] ^= bits
    if mended:  # so that what lies behind the checksum is reached
        for start in range(0, len(data), 512):
            if data[start + 257 : start + 262] == b"ustar":
                header = data[start : start + 512]
                mend(header)
                data[start : start + 512] = header
    name, content = ("a.tar.gz", gzip.compress(data, 1)) if zipped else ("a.tar", bytes(data))
    outcome = read_bytes(scratch, name, content)
    assert len(outcome.records) <= 6
    assert outcome.error is None or isinstance(outcome.error, ShardBroken)


FLIPPED_TAR = tar_bytes({f"{'d' * 150 * (n % 2)}{n}.jpg": b"x" * n for n in range(4)}, format=tarfile.PAX_FORMAT)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.data())
def test_a_gzipped_tar_with_flipped_bits_never_escapes_the_contract(scratch: Path, data: st.DataObject) -> None:
    assert_contract_under_flips(scratch, "a.tar.gz", gzip.compress(FLIPPED_TAR), data)


def test_many_members_of_one_name_are_not_held(scratch: Path) -> None:
    with tarfile.open(scratch / "same.tar", "w") as tar:
        for _ in range(60):
            info = tarfile.TarInfo("a.jpg")
            info.size = 2**20
            tar.addfile(info, io.BytesIO(bytes(2**20)))
    with memory_below(20 * 2**20):
        assert sum(1 for _ in read(shard_of(scratch / "same.tar"), Counter())) == 60


# Hard links


def tar_of(folder: Path, *options: str) -> Path:
    """What GNU tar makes of a folder's `cards`."""
    path = folder / ("a.tar.gz" if "-z" in options else "a.tar")
    subprocess.run(["tar", "--sort=name", "-C", str(folder / "cards"), *options, "-cf", str(path), "."], check=True)
    return path


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with three cameras, of which two hold hard links to the pictures of the first."""
    for camera in ("cam1", "cam2", "cam3"):
        (tmp_path / "cards" / camera).mkdir(parents=True)
    for number in range(3):
        first = tmp_path / f"cards/cam1/{number}.jpg"
        first.write_bytes(noise(5000 + number))
        (tmp_path / f"cards/cam2/{number}.jpg").hardlink_to(first)
        (tmp_path / f"cards/cam3/{2 - number}.jpg").hardlink_to(first)
    (tmp_path / "cards/cam2/1.json").write_bytes(b'{"k": 1}')
    return tmp_path


@pytest.mark.parametrize("options", [[], ["-z"], ["--format=posix"], ["--format=ustar", "-z"]])
def test_a_hard_link_is_a_row_with_the_bytes_of_its_target(options: list[str], linked: Path) -> None:
    outcome = read_sound(tar_of(linked, *options))
    expected = {f"./cam{camera}/{number}.jpg": noise(5000 + number) for camera in (1, 2) for number in range(3)}
    expected |= {f"./cam3/{2 - number}.jpg": noise(5000 + number) for number in range(3)}
    assert outcome.images == expected
    assert {key for key, metadata in outcome.metadata.items() if metadata} == {"./cam2/1.jpg"}
    assert not outcome.ignored


def test_hard_links_in_a_gzipped_tar_do_not_unpack_it_without_end(
    linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_archive, "_MAX_REWINDS", 1)
    outcome = read_sound(tar_of(linked, "-z"))
    assert Counter(outcome.kinds.values()) == {None: 7, "unreadable": 2}
    failed = next(record for record in outcome.records if record.error)
    assert "unpack it" in str(failed.error)


def test_a_hard_link_to_a_hard_link_and_one_under_another_spelling_are_found(scratch: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        info = tarfile.TarInfo("./a.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"a"))
        for name, target in [("b.jpg", "a.jpg"), ("c.jpg", "b.jpg"), ("d.jpg", "/c.jpg")]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    outcome = read_bytes(scratch, "a.tar", sink.getvalue())
    assert outcome.images == {"./a.jpg": b"a", "b.jpg": b"a", "c.jpg": b"a", "d.jpg": b"a"}


# GNU tar


def test_the_times_of_an_incremental_tar_are_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "cards/DCIM").mkdir(parents=True)
    (tmp_path / "cards/IMG_0.JPG").write_bytes(b"a")
    (tmp_path / "cards/DCIM/IMG_1.JPG").write_bytes(b"b")
    outcome = read_sound(tar_of(tmp_path, "--format=gnu", "-g", str(tmp_path / "snapshot")))
    assert outcome.images == {"./DCIM/IMG_1.JPG": b"b", "./IMG_0.JPG": b"a"}
    assert not outcome.ignored


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_long_name_is_whole_in_every_format(kind: int, scratch: Path) -> None:
    name = f"{'folder/' * 20}IMG_1.JPG"
    assert list(read_bytes(scratch, "a.tar", tar_bytes({name: b"x"}, format=kind)).images) == [name]


def test_the_rest_of_a_file_from_another_volume_is_a_failed_row(scratch: Path) -> None:
    rest = raw_header(b"IMG_1.JPG", 600, b"M") + padded(bytes(600))
    outcome = read_bytes(scratch, "a.tar", rest + AFTER)
    assert outcome.kinds == {"IMG_1.JPG": "unreadable", "after.jpg": None}


def test_zeros_beyond_measure_are_not_unpacked(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_UNPACKED_BYTES", 2**20)
    zeros = raw_header(b"notes.bin", 2**28) + bytes(2**28)
    outcome = read_bytes(scratch, "a.tar.gz", gzip.compress(BEFORE + zeros + AFTER, 1))
    assert isinstance(outcome.error, ShardBroken)
    assert "unpacks to more than" in str(outcome.error)
    assert outcome.images == {"before.jpg": b"x"}
    sound = read_bytes(scratch, "a.tar.gz", gzip.compress(BEFORE + zeros[: 512 + 2**20] + AFTER, 1))
    assert isinstance(sound.error, ShardBroken)  # which says 2**28 in its header
