from datetime import datetime, timedelta
from hashlib import sha256
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.support.clip_rows import clip_rows
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, sql
from trapline.analysis.dataset import Results
from trapline.analysis.search import duplicates
from trapline.errors import UsageError

COLUMNS = columns(["owl", "robin"], 2)
NOON = datetime(2024, 5, 17, 12)


def image(
    key: str, angle: float = 0, second: float | None = 0, camera: str | None = "A", data: bytes = b"x"
) -> Planted:
    """An image with its embedding at this angle in degrees, taken this long after noon."""
    facts: dict[str, Any] = {"camera_serial": camera, "content_sha256": sha256(data).digest()}
    if second is not None:
        facts["captured_at"] = NOON + timedelta(seconds=second)
    return Planted(key, (1, 0), (cos(radians(angle)), sin(radians(angle))), facts=facts)


def opened(output: str) -> tuple[duckdb.DuckDBPyConnection, Results]:
    found = dataset.find(output)
    connection = sql.connect()
    dataset.view(connection, found)
    return connection, found


def pairs(output: str, threshold: float = 0.98, window: float = 60) -> list[tuple[str, str]]:
    connection, found = opened(output)
    duplicates.near(connection, found, threshold, window)
    names = "image_uri[-1:], near_uri[-1:]"  # keys are letters in these tests
    return connection.execute(f"SELECT {names} FROM near ORDER BY ALL").fetchall()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_same_bytes_are_one_group_across_shards_and_the_largest_comes_first(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = f"{request.getfixturevalue('bucket')}/out" if kind == "s3" else str(tmp_path)
    failed = Planted("f", status="failed", error="empty: x", facts={"content_sha256": sha256(b"").digest()})
    one = [image("a", data=b"1"), image("b", data=b"2"), image("c", data=b"3"), failed]
    two = [image("d", data=b"2"), image("e", data=b"3"), failed, image("g", data=b"3"), Planted("h", (1, 0), (1, 0))]
    write_result(output, "s3://in/1.tar", "site=fen/1.tar", one, COLUMNS)
    write_result(output, "s3://in/2.tar", "2.tar", two, COLUMNS)
    connection, found = opened(output)
    table = duplicates.exact(connection, found)
    assert connection.execute(
        f'SELECT "group", copies, image_uri, content_sha256 FROM {table} ORDER BY ALL'
    ).fetchall() == [
        (1, 3, "s3://in/1.tar#c", sha256(b"3").hexdigest()),
        (1, 3, "s3://in/2.tar#e", sha256(b"3").hexdigest()),
        (1, 3, "s3://in/2.tar#g", sha256(b"3").hexdigest()),
        (2, 2, "s3://in/1.tar#b", sha256(b"2").hexdigest()),
        (2, 2, "s3://in/2.tar#d", sha256(b"2").hexdigest()),
    ]


@pytest.mark.parametrize("embedding", ["float32", "float16"])
def test_near_ones_are_found_across_shards_within_camera_and_window(tmp_path: Path, embedding: str) -> None:
    of = columns(["owl", "robin"], 2, embedding=embedding)
    one = [image("a"), image("b", angle=30, second=1), image("c", angle=5, second=60), image("d", second=60.5)]
    two = [image("e", angle=31, second=20), image("f", camera="B"), image("g", camera=None)]
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", one, of)
    write_result(str(tmp_path), "s3://in/2.tar", "2.tar", two, of)
    # b and e are 1 degree apart; a and c 5, at the window's edge; c and d as well; a and d 60.5 seconds.
    assert pairs(str(tmp_path)) == [("a", "c"), ("b", "e"), ("c", "d")]
    assert pairs(str(tmp_path), threshold=0.999) == [("b", "e")]
    assert pairs(str(tmp_path), window=61) == [("a", "c"), ("a", "d"), ("b", "e"), ("c", "d")]


def test_a_clip_is_there_once_and_its_frames_are_no_duplicates(tmp_path: Path) -> None:
    """Two copies of a clip, another one that looks alike, one that does not, and a photograph that was taken with it."""
    looks = {"p": ((0, 4, 8), b"1"), "q": ((0, 4, 8), b"1"), "r": ((2, 4, 9), b"2"), "s": ((50, 60, 70), b"3")}
    films = {
        key: clip_rows([image(key, angle, data=data) for angle in angles]) for key, (angles, data) in looks.items()
    }
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [*films["p"], image("t", 4, data=b"4"), *films["r"]], COLUMNS)
    write_result(str(tmp_path), "s3://in/2.tar", "2.tar", [*films["q"], *films["s"]], COLUMNS)
    connection, found = opened(str(tmp_path))
    table = duplicates.exact(connection, found)
    assert connection.execute(f'SELECT "group", copies, image_uri FROM {table} ORDER BY ALL').fetchall() == [
        (1, 2, "s3://in/1.tar#p"),
        (1, 2, "s3://in/2.tar#q"),
    ]
    assert pairs(str(tmp_path)) == [("p", "q"), ("p", "r"), ("p", "t"), ("r", "q"), ("t", "q"), ("t", "r")]


def test_images_without_a_time_are_compared_within_their_shard(tmp_path: Path) -> None:
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [image("a", second=None), image("b", second=None)], COLUMNS)
    write_result(str(tmp_path), "s3://in/2.tar", "2.tar", [image("c", second=None), image("d")], COLUMNS)
    assert pairs(str(tmp_path)) == [("a", "b")]
    connection, found = opened(str(tmp_path))
    duplicates.near(connection, found, 0.9, 60)
    assert connection.execute("SELECT cosine, seconds FROM near").fetchall() == [(pytest.approx(1), None)]


def test_rows_without_a_direction_or_an_embedding_are_near_nothing(tmp_path: Path) -> None:
    zero = Planted("z", (1, 0), (0, 0), facts={"captured_at": NOON, "camera_serial": "A"})
    bad = Planted("y", status="failed", error="corrupt: x", facts={"captured_at": NOON, "camera_serial": "A"})
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [image("a"), zero, bad, image("b")], COLUMNS)
    assert pairs(str(tmp_path)) == [("a", "b")]


def test_blocks_and_their_borders_lose_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 7)  # many borders
    rng = np.random.default_rng(3)
    seconds = np.cumsum(rng.choice([0, 0, 1, 4, 30], size=1500))
    angles = rng.uniform(0, 90, size=1500)
    cameras = rng.choice(["A", "B"], size=1500)
    images = [
        image(f"{n:04d}", angle, float(second), camera)
        for n, (angle, second, camera) in enumerate(zip(angles, seconds, cameras, strict=True))
    ]
    for shard in range(2):
        write_result(str(tmp_path), f"s3://in/{shard}.tar", f"{shard}.tar", images[shard::2], COLUMNS)
    # The brute force: every pair, by its angle.
    near = np.abs(angles[:, None] - angles) <= 8
    together = (np.abs(seconds[:, None] - seconds) <= 20) & (cameras[:, None] == cameras)
    expected = {frozenset(pair) for pair in np.argwhere(np.triu(near & together, 1)).tolist()}
    connection, found = opened(str(tmp_path))
    compared = duplicates.near(connection, found, cos(radians(8)), 20)
    rows = connection.execute("SELECT image_uri[-4:]::INT, near_uri[-4:]::INT FROM near").fetchall()
    assert len(rows) == len(expected) > 500
    assert {frozenset(row) for row in rows} == expected
    assert (compared.images, compared.cut) == (1500, 0)


def test_a_clock_that_stood_still_costs_no_more_than_its_reach_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "REACH", 3)
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [image(f"{n}") for n in range(8)], COLUMNS)
    connection, found = opened(str(tmp_path))
    compared = duplicates.near(connection, found, 0.9, 60)
    rows = connection.execute("SELECT image_uri[-1:]::INT, near_uri[-1:]::INT FROM near").fetchall()
    assert sorted(rows) == sorted((a, b) for b in range(8) for a in range(max(0, b - 3), b))
    assert (compared.images, compared.cut) == (8, 4)  # 4, 5, 6 and 7 have more than three before them


def test_results_without_embeddings_say_how_to_have_them(tmp_path: Path) -> None:
    write_result(str(tmp_path), "s3://in/1.tar", "1.tar", [image("a")], columns(["owl", "robin"], 2, embedding="none"))
    with pytest.raises(UsageError, match="have no column embedding"):
        pairs(str(tmp_path))
