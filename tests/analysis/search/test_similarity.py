"""Neighbours of planted embeddings, whose cosines are known: embeddings are angles in a plane."""

from collections.abc import Sequence
from hashlib import sha256
from math import cos, radians, sin
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archives import jpeg, write_tiny_checkpoint
from tests.support.clip_rows import clip_rows
from tests.support.clips import clip
from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, sql
from trapline.analysis.dataset import Results
from trapline.analysis.search import similarity
from trapline.cli import app
from trapline.config import RunConfig
from trapline.decoding.clips import ClipFile
from trapline.decoding.decode import decode
from trapline.decoding.media import decode_media
from trapline.decoding.sampling import Sampling
from trapline.errors import CheckpointError, UsageError
from trapline.model import checkpoint
from trapline.model.predict import Predictor
from trapline.results.fingerprint import Fingerprint
from trapline.run.job import fingerprint
from trapline.storage import store

COLUMNS = columns(["owl", "robin"], 2)


def at(angle: float, key: str | None = None, length: float = 1.0, logits: Sequence[float] = (1, 0)) -> Planted:
    """An image whose embedding lies at this angle, in degrees."""
    vector = (length * cos(radians(angle)), length * sin(radians(angle)))
    return Planted(key or f"{angle}.jpg", logits, vector)


def opened(output: str) -> tuple[duckdb.DuckDBPyConnection, Results]:
    found = dataset.find(output)
    connection = sql.connect()
    dataset.view(connection, found, frames=True)
    return connection, found


def neighbours(output: str, *like: str, count: int = 20, where: str | None = None, model: str | None = None) -> list:
    connection, found = opened(output)
    table = similarity.nearest(connection, found, similarity.examples(connection, found, like, model), count, where)
    names = connection.table(table).columns
    rows = connection.execute(f"FROM {table} ORDER BY rank").fetchall()
    return [dict(zip(names, row, strict=True)) for row in rows]


def uris(rows: list) -> list[str]:
    return [row["image_uri"] for row in rows]


@pytest.mark.parametrize("embedding", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_neighbours_come_from_all_shards_by_angle_whatever_their_length(
    kind: str, embedding: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = f"{request.getfixturevalue('bucket')}/out" if kind == "s3" else str(tmp_path)
    of = columns(["owl", "robin"], 2, embedding=embedding)
    write_result(output, "s3://in/a.tar", "site=fen/a.tar", [at(0), at(60, length=100), at(120)], of)
    write_result(output, "s3://in/b.tar", "b.tar", [at(30, length=0.01), at(-90, logits=(0, 3))], of)
    rows = neighbours(output, "s3://in/a.tar#0.jpg")
    assert uris(rows) == [
        "s3://in/b.tar#30.jpg",
        "s3://in/a.tar#60.jpg",
        "s3://in/b.tar#-90.jpg",
        "s3://in/a.tar#120.jpg",
    ]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert [row["cosine"] for row in rows] == pytest.approx([cos(radians(30)), 0.5, 0, -0.5], abs=1e-3)
    assert rows[2]["species"] == "robin"
    assert rows[2]["probability"] == pytest.approx(1 / (1 + np.exp(-3)))


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_nearest_are_those_of_a_full_sort(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    output = str(tmp_path_factory.mktemp("out"))
    for shard in range(3):
        images = [Planted(f"{n}.jpg", (0, 0), vectors[n]) for n in range(shard, 30, 3)]
        write_result(output, f"s3://in/{shard}.tar", f"{shard}.tar", images, columns(["a", "b"], 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = sorted(range(1, 30), key=lambda n: -(unit[n] @ unit[0]))[:count]
    found = neighbours(output, "s3://in/0.tar#0.jpg", count=count)
    assert uris(found) == [f"s3://in/{n % 3}.tar#{n}.jpg" for n in expected]


def test_several_examples_are_one_list_that_names_the_nearest_of_them(tmp_path: Path) -> None:
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", [at(0), at(90), at(10), at(85), at(45 + 180)], COLUMNS)
    rows = neighbours(str(tmp_path), "s3://in/a.tar#0.jpg", "s3://in/a.tar#90.jpg", count=2)
    assert [(row["image_uri"], row["example"]) for row in rows] == [
        ("s3://in/a.tar#85.jpg", "s3://in/a.tar#90.jpg"),
        ("s3://in/a.tar#10.jpg", "s3://in/a.tar#0.jpg"),
    ]


def test_rows_without_a_direction_are_no_neighbours(tmp_path: Path) -> None:
    images = [at(0), at(5), at(1, "zero.jpg", length=0), Planted("nan.jpg", (0, 0), (np.nan, 1))]
    images.append(Planted("bad.jpg", status="failed", error="corrupt: x"))
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", images, COLUMNS)
    assert uris(neighbours(str(tmp_path), "s3://in/a.tar#0.jpg")) == ["s3://in/a.tar#5.jpg"]
    with pytest.raises(UsageError, match=r"bad\.jpg: has no embedding \(corrupt: x\)"):
        neighbours(str(tmp_path), "s3://in/a.tar#bad.jpg")
    with pytest.raises(UsageError, match=r"zero\.jpg: its embedding has length 0\.0"):
        neighbours(str(tmp_path), "s3://in/a.tar#zero.jpg")


def test_a_condition_narrows_the_search_and_not_the_answer(tmp_path: Path) -> None:
    images = [at(0), at(1), at(2), at(50, logits=(0, 1)), at(60, logits=(0, 1))]
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", images, COLUMNS)
    rows = neighbours(str(tmp_path), "s3://in/a.tar#0.jpg", count=2, where="species = 'robin' OR key = '0.jpg' -- only")
    assert uris(rows) == ["s3://in/a.tar#50.jpg", "s3://in/a.tar#60.jpg"]
    with pytest.raises(UsageError, match=r"--where colour = 3: Binder Error.*colour"):
        neighbours(str(tmp_path), "s3://in/a.tar#0.jpg", where="colour = 3")


class TestClips:
    """A clip of three seconds, in which the animal is there for one, between pictures."""

    @pytest.fixture
    def output(self, tmp_path: Path) -> str:
        film = [at(angle, "a.mp4", logits=logits) for angle, logits in ((80, (0, 2)), (2, (3, 0)), (70, (0, 2)))]
        write_result(str(tmp_path), "s3://in/a.tar", "a.tar", [at(0), *clip_rows(film), at(10)], COLUMNS)
        still = [at(angle, "still.mp4") for angle in (30, 30, 40)]
        write_result(str(tmp_path), "s3://in/b.tar", "b.tar", [at(35), *clip_rows(still, every=2.5)], COLUMNS)
        return str(tmp_path)

    def test_an_answer_names_a_clip_once_and_the_second_of_its_nearest_frame(self, output: str) -> None:
        rows = neighbours(output, "s3://in/a.tar#0.jpg")
        assert [(row["image_uri"].rpartition("/")[2], row["frame_seconds"]) for row in rows] == [
            ("a.tar#a.mp4", 1.0),
            ("a.tar#10.jpg", None),
            ("b.tar#still.mp4", 0.0),  # of two that are the same the first
            ("b.tar#35.jpg", None),
        ]
        assert rows[0]["cosine"] == pytest.approx(cos(radians(2)))
        assert (rows[0]["species"], rows[2]["species"]) == ("owl", "owl")
        assert uris(neighbours(output, "s3://in/a.tar#0.jpg", count=1)) == ["s3://in/a.tar#a.mp4"]

    def test_a_clip_as_example_is_the_mean_of_its_frames_and_finds_none_of_them(self, output: str) -> None:
        rows = neighbours(output, "s3://in/b.tar#still.mp4")
        assert [row["image_uri"].rpartition("/")[2] for row in rows] == [
            "b.tar#35.jpg", "a.tar#10.jpg", "a.tar#a.mp4", "a.tar#0.jpg"
        ]  # fmt: skip
        assert rows[0]["cosine"] == pytest.approx(cos(radians(35 - 33.33)), abs=1e-4)
        assert rows[2]["frame_seconds"] == 1.0

    def test_a_condition_looks_at_the_frames(self, output: str) -> None:
        (row, *_) = neighbours(output, "s3://in/a.tar#0.jpg", where="species = 'robin'")
        assert (row["image_uri"], row["frame_seconds"]) == ("s3://in/a.tar#a.mp4", 2.0)
        assert [row["frame_seconds"] for row in neighbours(output, "s3://in/a.tar#0.jpg", where="frame_seconds IS NULL")] == [
            None, None
        ]  # fmt: skip

    def test_several_examples_are_each_near_to_another_second(self, output: str) -> None:
        rows = neighbours(output, "s3://in/a.tar#0.jpg", "s3://in/b.tar#35.jpg", where="key = 'a.mp4'")
        assert [(row["frame_seconds"], row["example"]) for row in rows] == [(1.0, "s3://in/a.tar#0.jpg")]


def test_a_model_without_classes_has_neighbours_too(tmp_path: Path) -> None:
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", [at(0, logits=()), at(1, logits=())], columns([], 2))
    (row,) = neighbours(str(tmp_path), "s3://in/a.tar#0.jpg")
    assert list(row) == ["rank", "cosine", "captured_at", "image_uri"]


def test_results_without_embeddings_say_how_to_have_them(tmp_path: Path) -> None:
    write_result(str(tmp_path), "s3://in/a.tar", "a.tar", [at(0)], columns(["owl", "robin"], 2, embedding="none"))
    with pytest.raises(
        UsageError, match=r"have no column embedding; run `trapline classify` over it with --embedding float32"
    ):
        neighbours(str(tmp_path), "s3://in/a.tar#0.jpg")


@pytest.fixture(scope="module")
def mark(tiny_model: Path) -> Fingerprint:
    config = RunConfig(inputs=("a",), output="o", model=str(tiny_model))
    return fingerprint(config, checkpoint.load(str(tiny_model), size=(96, 64)), "fp32")


class TestPictures:
    """Examples that are no rows: the model embeds them."""

    @pytest.fixture
    def output(self, tmp_path: Path, tiny_model: Path, mark: Fingerprint) -> str:
        """Three pictures, with the embeddings that classify would give them."""
        predictor = Predictor(checkpoint.load(str(tiny_model), size=(96, 64)), "cpu", "fp32", 1)
        images = []
        for seed in range(3):
            pixels, _ = decode(jpeg(seed), (96, 64))
            assert pixels is not None
            images.append(Planted(f"{seed}.jpg", [0] * 5, predictor(pixels[None].numpy()).embedding[0]))
        write_result(str(tmp_path / "out"), "s3://in/a.tar", "a.tar", images, columns(list("abcde"), 128), mark)
        return str(tmp_path / "out")

    @pytest.mark.parametrize("kind", ["local", "s3"])
    def test_a_picture_finds_its_own_row(
        self, kind: str, output: str, tmp_path: Path, tiny_model: Path, request: pytest.FixtureRequest
    ) -> None:
        url = f"{request.getfixturevalue('bucket') if kind == 's3' else tmp_path}/example.jpg"
        store.put(url, jpeg(1))
        rows = neighbours(output, url, model=str(tiny_model))
        assert len(rows) == 3
        assert rows[0]["image_uri"] == "s3://in/a.tar#1.jpg"
        assert rows[0]["cosine"] == pytest.approx(1, abs=1e-5)
        assert rows[1]["cosine"] < 0.9999

    @pytest.mark.parametrize("kind", ["local", "s3"])
    def test_a_clip_finds_its_own_row_by_the_mean_of_its_frames(
        self, kind: str, tmp_path: Path, tiny_model: Path, mark: Fingerprint, request: pytest.FixtureRequest
    ) -> None:
        film = clip(frames=30)
        file = tmp_path / "film"
        file.write_bytes(film)
        pixels, _ = decode_media(ClipFile(str(file), sha256(film).digest()), (96, 64), sampling=Sampling(fps=5))
        assert pixels is not None
        frames = Predictor(checkpoint.load(str(tiny_model), size=(96, 64)), "cpu", "fp32", 1)(pixels.numpy()).embedding
        planted = [Planted("a.mp4", [0] * 5, embedding) for embedding in frames]
        of_5_a_second = Fingerprint({**mark.facts, "video_fps": 5.0})
        mean = Planted("mean.jpg", [0] * 5, frames.mean(axis=0))
        rows = [*clip_rows(planted, every=0.2), mean]
        write_result(str(tmp_path / "out"), "s3://in/a.tar", "a.tar", rows, columns(list("abcde"), 128), of_5_a_second)
        url = f"{request.getfixturevalue('bucket') if kind == 's3' else tmp_path}/example.mp4"
        store.put(url, film)
        (first, *_) = neighbours(str(tmp_path / "out"), url, model=str(tiny_model))
        assert first["image_uri"] == "s3://in/a.tar#mean.jpg"
        assert first["cosine"] == pytest.approx(1, abs=1e-5)
        (second,) = neighbours(str(tmp_path / "out"), url, model=str(tiny_model), where="frame_seconds IS NOT NULL")
        assert second["cosine"] < first["cosine"]

    def test_rescored_results_name_those_that_have_the_embeddings(self, output: str, tmp_path: Path) -> None:
        assert app.main(["rescore", output, f"{tmp_path}/again", "--temperature", "2"]) == 0
        with pytest.raises(UsageError, match=r"give the results that they were made from \(/.*/out/a\.tar\.parquet\)"):
            neighbours(f"{tmp_path}/again", "s3://in/a.tar#1.jpg")

    def test_another_model_is_refused(self, output: str, tmp_path: Path, mark: Fingerprint) -> None:
        (tmp_path / "1.jpg").write_bytes(jpeg(1))
        other = write_tiny_checkpoint(tmp_path / "other", classes=4)
        with pytest.raises(CheckpointError, match=rf"computed with weights {mark.facts['weights_sha256']}"):
            neighbours(output, str(tmp_path / "1.jpg"), model=str(other))

    def test_another_preprocessing_is_refused(self, tmp_path: Path, tiny_model: Path, mark: Fingerprint) -> None:
        (tmp_path / "1.jpg").write_bytes(jpeg(1))
        changed = Fingerprint({**mark.facts, "preprocessing": {"resize": "crop"}})
        write_result(str(tmp_path / "out"), "s3://in/a.tar", "a.tar", [], columns(list("abcde"), 128), changed)
        with pytest.raises(UsageError, match="another version of Trapline \\(preprocessing"):
            neighbours(str(tmp_path / "out"), str(tmp_path / "1.jpg"), model=str(tiny_model))

    def test_what_is_neither_row_nor_picture_is_named(self, output: str, tmp_path: Path, tiny_model: Path) -> None:
        (tmp_path / "notes.jpg").write_bytes(b"not a picture")
        with pytest.raises(UsageError, match=r"notes\.jpg: cannot be used as example \(not_an_image"):
            neighbours(output, str(tmp_path / "notes.jpg"), model=str(tiny_model))
        with pytest.raises(UsageError, match=r"is no image_uri of .*, and no picture either: .*not found"):
            neighbours(output, "s3://in/a.tar#7.jpg".replace("s3://in", str(tmp_path)), model=str(tiny_model))
        with pytest.raises(UsageError, match="name the checkpoint of the results with --model"):
            neighbours(output, "s3://in/a.tar#7.jpg")


def test_the_planted_fingerprint_needs_no_model_for_rows(tmp_path: Path) -> None:
    write_result(str(tmp_path), "/in/a.tar", "a.tar", [at(0), at(1)], COLUMNS, MARK)
    assert uris(neighbours(str(tmp_path), "/in/../in/a.tar#0.jpg")) == ["/in/a.tar#1.jpg"]
