"""A store that flips bits, behind a real server: nothing bad is said of a shard that one reading alone has seen."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import jpeg, pictures, write_tar
from tests.support.faulty_store import Fault, FaultyStore, faulty_store
from tests.support.servers import S3Server
from trapline.run.chunks import read_chunks
from trapline.run.messages import DecodedChunk, Failure
from trapline.run.second_readings import is_worthwhile
from trapline.sources.shards import Shard, discover
from trapline.storage import store

SIZE = (64, 64)


@pytest.fixture
def faulty(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The store through the proxy, which is where `s3://` leads in this test."""
    with faulty_store(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.server.endpoint)
        store.reconnect(bucket)
        yield proxy
    monkeypatch.undo()
    store.reconnect(bucket)


def upload(s3: S3Server, bucket: str, path: Path) -> Shard:
    s3.filesystem().put(str(path), f"{bucket}/in/{path.name}", recursive=path.is_dir())
    return discover([f"{bucket}/in"], f"{bucket}/out").shards[0]


def read(shard: Shard) -> tuple[dict[str, str], str | None]:
    """Status by key, and why the shard is broken."""
    items = list(read_chunks(shard, SIZE, 4))
    chunks = [item for item in items if isinstance(item, DecodedChunk)]
    assert len(chunks) == len(items), items
    rows = [row for chunk in chunks for row in chunk.rows.to_pylist()]
    assert sum(len(chunk.pixels) for chunk in chunks) == len([row for row in rows if row["status"] != "failed"])
    assert len({row["key"] for row in rows}) == len(rows)
    assert chunks[-1].end is not None
    return {row["key"]: row["status"] for row in rows}, chunks[-1].end.broken


def offsets(path: Path) -> dict[str, int]:
    """Where each member's bytes begin."""
    with tarfile.open(path) as tar:
        return {member.name: member.offset_data for member in tar}


def test_a_sound_picture_stays_one(s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(9))
    shard = upload(s3, bucket, path)
    faulty.faults.append(Fault("flip", r"GET .*a\.tar", times=1, at=(offsets(path)["DCIM/IMG_0004.jpg"],)))
    assert read(shard) == (dict.fromkeys(pictures(9), "ok"), None)
    assert faulty.faults[0].times == 0


def test_the_second_reading_comes_over_another_connection(
    s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    shard = upload(s3, bucket, write_tar(tmp_path / "a.tar", {"DCIM/empty.jpg": b""}))
    read(shard)
    first, second = (
        port for request, port in zip(faulty.log, faulty.ports, strict=True) if re.match(r"GET .*a\.tar", request)
    )
    assert first != second


def test_a_sound_archive_stays_one(s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(9))
    shard = upload(s3, bucket, path)
    faulty.faults.append(Fault("flip", r"GET .*a\.tar", times=1, at=(offsets(path)["DCIM/IMG_0004.jpg"] - 512,)))
    assert read(shard) == (dict.fromkeys(pictures(9), "ok"), None)
    assert faulty.faults[0].times == 0


def test_a_sound_loose_picture_stays_one_and_the_others_are_not_fetched_again(
    s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    for name, data in pictures(3, prefix="").items():
        s3.filesystem().pipe_file(f"{bucket}/in/{name}", data)
    (shard,) = discover([f"{bucket}/in"], f"{bucket}/out").shards
    faulty.faults.append(Fault("flip", r"GET .*0001\.jpg", times=1, at=(0,)))
    assert read(shard) == (dict.fromkeys(pictures(3, prefix=""), "ok"), None)
    assert [faulty.asked(rf"GET .*000{number}\.jpg") for number in range(3)] == [1, 2, 1]


def test_what_is_really_bad_costs_twice_and_is_said(
    s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    members = pictures(9) | {"DCIM/cut.jpg": jpeg(3, (400, 300))[:9000], "DCIM/empty.jpg": b"", "DCIM/end.jpg": jpeg(8)}
    path = write_tar(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[: offsets(path)["DCIM/end.jpg"] + 100])
    shard = upload(s3, bucket, path)
    before = len(faulty.log)
    statuses, broken = read(shard)
    bad = {"DCIM/cut.jpg": "salvaged", "DCIM/empty.jpg": "failed", "": "failed"}
    assert statuses == dict.fromkeys(pictures(9), "ok") | bad
    assert broken is not None
    assert broken.startswith(f"{shard.uri}: the tar breaks off")
    assert sum(request.startswith("GET") and "a.tar" in request for request in faulty.log[before:]) == 2


def test_two_readings_that_differ_say_nothing_of_the_picture(
    s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(9))
    shard = upload(s3, bucket, path)
    start = offsets(path)["DCIM/IMG_0004.jpg"]
    faulty.faults.append(Fault("flip", r"GET .*a\.tar", at=(start, start + 1)))
    *_, failure = read_chunks(shard, SIZE, 4)
    assert isinstance(failure, Failure)
    assert failure.transient
    assert "'DCIM/IMG_0004.jpg': not_an_image" in failure.reason
    assert failure.reason.startswith(f"{shard.uri}: two readings of it differ")


@pytest.mark.parametrize("order", [(4, 6), (6, 4)])
def test_two_breaks_at_different_places_are_none(
    order: tuple[int, int], s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(9))
    shard = upload(s3, bucket, path)
    headers = tuple(offsets(path)[f"DCIM/IMG_000{number}.jpg"] - 512 for number in order)
    faulty.faults.append(Fault("flip", r"GET .*a\.tar", at=headers))
    *_, failure = read_chunks(shard, SIZE, 4)
    assert isinstance(failure, Failure)
    assert failure.transient
    assert failure.reason.startswith(f"{shard.uri}: two readings of it differ")


def test_what_the_store_s_md5_proves_needs_no_two_that_agree(
    s3: S3Server, bucket: str, faulty: FaultyStore, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(3) | {"DCIM/cut.jpg": jpeg(3, (400, 300))[:9000]})
    shard = upload(s3, bucket, path)
    faulty.faults.append(Fault("flip", r"GET .*a\.tar", times=1, at=(offsets(path)["DCIM/cut.jpg"],)))
    assert read(shard) == (dict.fromkeys(pictures(3), "ok") | {"DCIM/cut.jpg": "salvaged"}, None)
    assert faulty.faults[0].times == 0


def test_a_file_of_this_machine_is_read_once(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(2))
    (shard,) = discover([str(path)], str(tmp_path / "out")).shards
    assert not is_worthwhile(shard)
    assert is_worthwhile(upload(s3, bucket, path))
