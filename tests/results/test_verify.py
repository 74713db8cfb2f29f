"""Results are tampered with in every way that matters, and each is noticed."""

import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import version_3
from tests.support.archives import jpeg, pictures, sidecar, write_folder, write_tar, write_zip
from tests.support.clips import clip
from tests.support.progress import Silent
from trapline.cli.verify import main
from trapline.config import RunConfig
from trapline.results import verify
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.verify import Finding, reconcile
from trapline.run.classify import classify
from trapline.sources.shards import discover

MEMBERS = {**pictures(3), "bad.jpg": b""}


@pytest.fixture(scope="module")
def first_night(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, ray_session: None) -> Path:
    """A folder with `archive` and its `output`."""
    folder = tmp_path_factory.mktemp("night")
    write_tar(folder / "archive/a.tar", pictures(4) | {"bad.jpg": b"", "DCIM/IMG_0003.json": sidecar(a=1)})
    write_zip(folder / "archive/b.zip", pictures(3))
    write_folder(folder / "archive/loose", pictures(3, prefix=""))
    write_zip(folder / "archive/clips.zip", {"a.mp4": clip(frames=25), "b.jpg": jpeg(1), "c.avi": b"", "d.jpg": clip()})
    cut = write_tar(folder / "archive/cut.tar", pictures(5))
    cut.write_bytes(cut.read_bytes()[:7000])
    output = str(folder / "output")
    classify(RunConfig(inputs=(str(folder / "archive"),), output=output, model=str(tiny_model)), Silent())
    return folder


@pytest.fixture
def night(first_night: Path, tmp_path: Path) -> Iterator[Path]:
    """The same, put back afterwards as it was, times and all."""
    backup = shutil.copytree(first_night, tmp_path / "backup")
    yield first_night
    shutil.rmtree(first_night)
    shutil.copytree(backup, first_night)


def findings(night: Path, sample: int | None = None) -> dict[str, Finding]:
    found = reconcile([str(night / "archive")], str(night / "output"), sample)
    return {str(Path(finding.output).relative_to(night / "output")): finding for finding in found}


def tamper(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Rewrite a result, footer and all, with other rows."""
    table = pq.read_table(path, partitioning=None)
    pq.write_table(change(table).replace_schema_metadata(pq.read_metadata(path).metadata), path)


def test_an_untouched_result_is_good(night: Path) -> None:
    found = findings(night)
    names = {"a.tar.parquet", "b.zip.parquet", "clips.zip.parquet", "cut.tar.parquet", "loose/images.parquet"}
    assert set(found) == names
    assert all(finding.good for finding in found.values())
    clips = found["clips.zip.parquet"]
    assert (clips.images, clips.clips, clips.frames) == (4, 3, 6)  # one of them is empty, one named like an image
    assert found["a.tar.parquet"].images == 5


def test_a_clip_is_a_row_with_the_mean_of_its_frames(night: Path) -> None:
    rows = pq.read_table(night / "output/clips.zip.parquet", partitioning=None).to_pylist()
    assert [(row["key"], row["frame_seconds"]) for row in rows] == [
        *[("a.mp4", seconds) for seconds in (None, 0.0, 1.0, 2.0)],
        ("b.jpg", None),
        ("c.avi", None),
        *[("d.jpg", seconds) for seconds in (None, 0.0, 1.0, 2.0)],
    ]
    clip, *frames = rows[:4]
    shared = ("status", "content_sha256", "format", "duration_seconds", "frame_rate", "media_type")
    assert all(frame[name] == clip[name] for frame in frames for name in shared)
    assert (clip["status"], clip["format"], clip["duration_seconds"], clip["frame_rate"]) == ("ok", "mp4", 2.5, 10.0)
    for name in ("probabilities", "embedding", "energy"):
        mean = np.mean([frame[name] for frame in frames], axis=0)
        np.testing.assert_allclose(clip[name], mean, rtol=1e-6)
    assert clip["probability"] == max(clip["probabilities"])
    assert clip["top_k"][0] == {"species": clip["species"], "probability": clip["probability"]}
    assert len({frame["energy"] for frame in frames}) == 3
    assert (rows[5]["status"], rows[5]["error"], rows[5]["species"]) == ("failed", "empty: the file has no bytes", None)


def test_a_frame_that_is_there_twice_is_counted(night: Path) -> None:
    tamper(night / "output/clips.zip.parquet", lambda table: pa.concat_tables([table, table.slice(2, 1)]))
    assert findings(night)["clips.zip.parquet"].duplicated == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.slice(1), {"missing": 1}),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), {"duplicated": 1}),
        (lambda table: _with_key(table, "stranger.jpg"), {"missing": 1, "foreign": 1}),
        (lambda table: _with_hash(table, bytes(32)), {"stale": 1}),
    ],
)
def test_a_row_that_is_missing_doubled_foreign_or_stale_is_counted(
    night: Path, change: Callable[[pa.Table], pa.Table], expected: dict[str, int]
) -> None:
    tamper(night / "output/b.zip.parquet", change)
    finding = findings(night)["b.zip.parquet"]
    assert not finding.good
    counts = {name: getattr(finding, name) for name in ("missing", "duplicated", "foreign", "stale")}
    assert {name: count for name, count in counts.items() if count} == expected


def test_a_result_that_is_not_there_or_not_ours_is_trouble(night: Path) -> None:
    (night / "output/b.zip.parquet").unlink()
    (night / "output/stray.parquet").write_bytes(b"no Parquet")
    found = findings(night)
    assert found["b.zip.parquet"].trouble == "no result yet"
    assert found["stray.parquet"].trouble == "not written by Trapline"


def test_a_shard_that_changed_makes_all_its_rows_stale_and_one_that_went_leaves_them(night: Path) -> None:
    (night / "archive/a.tar").touch()
    (night / "archive/b.zip").unlink()
    found = findings(night)
    assert found["a.tar.parquet"].stale == 5
    assert found["b.zip.parquet"].good
    assert found["b.zip.parquet"].uri is None


def test_a_sample_reads_only_some_shards_but_misses_no_file(night: Path) -> None:
    (night / "output/b.zip.parquet").unlink()
    found = findings(night, sample=1)
    assert len(found) == 5
    assert not found["b.zip.parquet"].good


class TestCounts:
    @staticmethod
    def written(folder: Path, rows: dict[str, bytes], **facts: str) -> Finding:
        """A result of `folder/archive` with these keys and contents, compared."""
        (shard,) = discover([str(folder / "archive")], str(folder / "output")).shards
        footer = Footer(shard.uri, shard.identity, Fingerprint(facts), images={"ok": len(rows)})
        hashes = pa.array([sha256(data).digest() for data in rows.values()], pa.binary(32))
        table = pa.table({"key": list(rows), "content_sha256": hashes})
        Path(shard.output).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(footer.to_metadata()), shard.output)
        (finding,) = reconcile([str(folder / "archive")], str(folder / "output"))
        return finding

    def test_an_image_that_the_reader_overlooks_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        members = pictures(3)
        write_tar(tmp_path / "archive/a.tar", members)
        assert self.written(tmp_path, members).good
        name, _ = members.popitem()
        read = verify.read
        # A reader with a fault wrote the rows, and reads them again.
        monkeypatch.setattr(verify, "read", lambda *some: (each for each in read(*some) if each.key != name))
        finding = self.written(tmp_path, members)
        assert finding.trouble == "reading it gave 2 images, but its own headers count 3; please report this"

    def test_the_column_that_was_read_is_read_again(self, tmp_path: Path) -> None:
        (tmp_path / "archive").mkdir()
        table = pa.table({"image": [b"i"], "crop": [b"c"], "path": ["a.jpg"]})
        pq.write_table(table, tmp_path / "archive/a.parquet")
        assert self.written(tmp_path, {"a.jpg": b"c"}, image_column="crop").good
        assert self.written(tmp_path, {"a.jpg": b"i"}).good
        assert self.written(tmp_path, {"a.jpg": b"i"}, image_column="crop").stale == 1


class TestVersion3:
    """Results from before clips: no columns of clips and frames, and clips counted among the ignored files."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder with `archive`, which holds a clip, too, and its `output` as version 3 had it, with `rows`."""
        write_tar(tmp_path / "archive/a.tar", MEMBERS | {"clip.mp4": clip(frames=2)})
        return tmp_path

    @staticmethod
    def compared(folder: Path, rows: list[dict[str, Any]], crops: bool = False) -> Finding:
        (shard,) = discover([str(folder / "archive")], str(folder / "output")).shards
        version_3.write(Path(shard.output), shard.uri, shard.identity, rows, crops)
        (finding,) = reconcile([str(folder / "archive")], str(folder / "output"))
        return finding

    def test_untouched_it_is_good(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [version_3.row(key, data) for key, data in MEMBERS.items()]
        finding = self.compared(folder, rows)
        assert finding.good
        assert (finding.images, finding.clips, finding.frames) == (4, 0, 0)
        assert main([str(folder / "archive"), str(folder / "output")]) == 0
        assert "0 shards differ" in capsys.readouterr().out

    def test_crops_are_rows_besides(self, folder: Path) -> None:
        rows = [version_3.row(key, data) for key, data in MEMBERS.items()]
        key, data = next(iter(MEMBERS.items()))
        crops = [version_3.row(key, data, crop) for crop in (1, 2)]
        assert self.compared(folder, rows + crops, crops=True).good
        assert self.compared(folder, [*rows, *crops, crops[1]], crops=True).duplicated == 1

    def test_what_is_wrong_is_counted(self, folder: Path) -> None:
        first, *rest = (version_3.row(key, data) for key, data in MEMBERS.items())
        assert self.compared(folder, rest).missing == 1
        assert self.compared(folder, [first, first, *rest]).duplicated == 1
        assert self.compared(folder, [first, *rest, version_3.row("clip.mp4", b"c")]).foreign == 1
        assert self.compared(folder, [first | {"content_sha256": bytes(32)}, *rest]).stale == 1


class TestTheJob:
    def test_ends_with_0_where_all_is_well_and_1_where_not(
        self, night: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [str(night / "archive"), str(night / "output")]
        assert main(arguments) == 0
        assert "0 shards differ" in capsys.readouterr().out
        (night / "output/a.tar.parquet").unlink()
        assert main(arguments) == 1
        assert "no result yet" in " ".join(capsys.readouterr().out.split())

    def test_a_bad_invocation_ends_with_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["only-one"]) == 2
        assert "give INPUT... and then OUTPUT" in capsys.readouterr().err


def _with_key(table: pa.Table, key: str) -> pa.Table:
    keys = [key, *table.column("key").to_pylist()[1:]]
    return table.set_column(table.schema.get_field_index("key"), "key", pa.array(keys))


def _with_hash(table: pa.Table, digest: bytes) -> pa.Table:
    hashes = [digest, *table.column("content_sha256").to_pylist()[1:]]
    index = table.schema.get_field_index("content_sha256")
    return table.set_column(index, "content_sha256", pa.array(hashes, pa.binary(32)))
