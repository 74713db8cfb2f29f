from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from tests.support.servers import S3Server
from trapline.analysis import dataset, sql
from trapline.errors import OutputConflict, StorageError, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

COLUMNS = columns(["owl", "robin"], 4)


def planted(output: str) -> None:
    images = [Planted(f"{n}.jpg", (n, 0), (n, 0, 0, 0)) for n in range(3)]
    write_result(output, "s3://in/a.tar", "site=fen/a.tar", images, COLUMNS)
    write_result(
        output, "s3://in/b.tar", "b.tar", [*images, Planted("c.jpg", status="failed", error="empty: x")], COLUMNS
    )


def place(kind: str, tmp_path: Path, bucket: str) -> str:
    return f"{bucket}/out" if kind == "s3" else str(tmp_path / "out")


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_rows_of_all_results_are_one_view(kind: str, tmp_path: Path, bucket: str) -> None:
    output = place(kind, tmp_path, bucket)
    planted(output)
    store.put(f"{output}/notes.parquet", b"somebody's")
    store.put(f"{output}/_trapline/ledger.parquet", b"not data")
    found = dataset.find(output)
    assert [file.shard for file in found.files] == ["s3://in/b.tar", "s3://in/a.tar"]
    assert (found.fingerprint.digest, found.classes) == (MARK.digest, ("owl", "robin"))
    connection = sql.connect()
    dataset.view(connection, found)
    assert connection.sql("select count(*), count(embedding), sum(embedding[1]) from images").fetchall() == [
        (7, 6, 6.0)
    ]
    assert connection.sql("select key from images where species = 'robin'").fetchall() == []


CLIP = {"media_type": "video", "duration_seconds": 2.0, "frame_rate": 30.0}
WITH_CLIP = [
    Planted("1.jpg", (1, 0), (1, 0, 0, 0)),
    Planted("2.mp4", (2, 0), (2, 0, 0, 0), facts=CLIP),
    *(Planted("2.mp4", (n, 0), (n, 0, 0, 0), facts=CLIP | {"frame_seconds": float(n)}) for n in (0, 1)),
]


def test_each_picture_and_each_clip_is_there_once_and_frames_where_they_are_asked_for(tmp_path: Path) -> None:
    output = str(tmp_path)
    footer = write_result(output, "s3://in/a.tar", "a.tar", WITH_CLIP, COLUMNS)
    assert (footer.images["ok"], footer.clips, footer.frames, footer.crops) == (2, 1, 2, 0)
    assert footer.species == {"owl": 2}
    (result,) = (found := dataset.find(output)).files
    assert (result.images, result.clips, result.frames) == (2, 1, 2)
    connection = sql.connect()
    dataset.view(connection, found)
    assert connection.sql("select key, media_type from images order by key").fetchall() == [
        ("1.jpg", "image"),
        ("2.mp4", "video"),
    ]
    dataset.view(connection, found, "all_rows", frames=True)
    seconds = connection.sql("select key, frame_seconds from all_rows order by all nulls first").fetchall()
    assert seconds == [("1.jpg", None), ("2.mp4", None), ("2.mp4", 0.0), ("2.mp4", 1.0)]
    pictures = dataset.without_frames(connection, [result.url])
    assert connection.sql(f"select count(*) from {pictures}").fetchall() == [(2,)]


def test_rows_that_the_ledger_does_not_know_of_are_not_counted_in_silence(tmp_path: Path) -> None:
    output = str(tmp_path)
    planted(output)
    found = dataset.find(output)
    images = [Planted(f"{n}.jpg", (n, 0), (n, 0, 0, 0)) for n in range(5)]
    write_result(output, "s3://in/b.tar", "b.tar", images, COLUMNS)
    with pytest.raises(
        OutputConflict, match=r"b\.tar\.parquet: 5 images were read of it, and its footer says 4; .*try again later"
    ):
        dataset.view(sql.connect(), found)
    with pytest.raises(OutputConflict, match=r"c\.parquet: was read, and is none of the results"):
        dataset.require_all(found, {file.url: file.images for file in found.files} | {f"{output}/c.parquet": 1})


def test_results_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    planted(str(tmp_path))
    path = tmp_path / "b.tar.parquet"
    table, metadata = pq.read_table(path).drop_columns("shard"), pq.read_metadata(path).metadata
    found = dataset.find(str(tmp_path))
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(UsageError, match=r"have no column shard; .*`trapline classify`.* again with --replace"):
        dataset.view(sql.connect(), found)


def test_an_output_without_results_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no results; `trapline classify` writes them"):
        dataset.find(str(tmp_path))


def test_rows_that_were_computed_in_two_ways_are_not_mixed(tmp_path: Path) -> None:
    planted(str(tmp_path))
    write_result(str(tmp_path), "s3://in/c.tar", "c.tar", [], COLUMNS, Fingerprint({"top_k": 3}))
    with pytest.raises(OutputConflict, match="its 3 results were computed in 2 ways"):
        dataset.find(str(tmp_path))


def test_a_missing_bucket_is_said_in_one_line(s3: S3Server) -> None:
    with pytest.raises((StorageError, UsageError), match="s3://nowhere-1/out"):
        dataset.find("s3://nowhere-1/out")


def test_results_without_clips_stand_beside_others_whatever_the_options_for_clips(tmp_path: Path) -> None:
    marks = [Fingerprint({**MARK.facts, "video_fps": fps}) for fps in (1.0, 2.0, 3.0)]
    clip = Planted("a.mp4", (1, 0), (1, 0, 0, 0), facts={"media_type": "video"})
    for name, image, mark in zip("abc", (Planted("a.jpg", (1, 0), (1, 0, 0, 0)), clip, clip), marks, strict=True):
        write_result(str(tmp_path), f"s3://in/{name}.tar", f"{name}.tar", [image], COLUMNS, mark)
        if name == "b":
            found = dataset.find(str(tmp_path))
            assert (len(found.files), found.fingerprint) == (2, mark)
    with pytest.raises(OutputConflict, match="its 3 results were computed in 2 ways"):
        dataset.find(str(tmp_path))
