"""Pictures that are read again from their shards."""

import base64
import io
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.archives import jpeg, write_folder, write_parquet, write_tar, write_zip
from tests.support.clips import clip, every_frame
from tests.support.report import COLUMNS, plant, seen
from tests.support.result_files import write_result
from trapline.analysis import dataset
from trapline.analysis.report import thumbnails
from trapline.analysis.report.thumbnails import Picture, Thumbnail
from trapline.cli import rescore


class TestThumbnails:
    @staticmethod
    def picture(shard: object, key: str, data: bytes) -> Picture:
        return Picture(str(shard), key, sha256(data).digest())

    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("a.tar", write_tar),
            ("a.tar.gz", write_tar),
            ("a.zip", write_zip),
            ("a.parquet", write_parquet),
            ("a", write_folder),
        ],
    )
    def test_a_picture_is_found_in_every_kind_of_shard(
        self, name: str, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(5)}
        shard = write(tmp_path / name, members, *(["w:gz"] if name.endswith("gz") else []))
        wanted = [self.picture(shard, key, members[key]) for key in ("3.jpg", "1.jpg")]
        found = thumbnails.fetch(wanted)
        for picture in wanted:
            thumbnail = found[picture]
            assert (thumbnail.problem, thumbnail.width, thumbnail.height) == ("", 96, 72)
            assert thumbnail.data_uri.startswith("data:image/jpeg;base64,")

    def test_of_two_with_one_name_the_second_has_its_ordinal(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(1)})
        second = jpeg(2)
        shard = write_tar(tmp_path / "b.tar", {"a.jpg": jpeg(1), "a.json": b"{}", "x.txt": b"", "./a.jpg": second})
        data = shard.read_bytes().replace(b"./a.jpg", b"a.jpg\0\0")
        shard.write_bytes(fix_checksums(data))
        picture = self.picture(shard, "a.jpg@2", second)
        assert thumbnails.fetch([picture])[picture].problem == ""

    def test_ordinals_count_across_the_row_groups_of_parquet(self, tmp_path: Path) -> None:
        pictures = {key: jpeg(seed) for seed, key in enumerate(("a.jpg", "b.jpg", "a.jpg@2", "c.jpg"))}
        names = [key.partition("@")[0] for key in pictures]
        table = pa.table({"image": list(pictures.values()), "path": names})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
        wanted = [self.picture(tmp_path / "a.parquet", key, pictures[key]) for key in ("a.jpg@2", "b.jpg")]
        found = thumbnails.fetch(wanted)
        assert [found[picture].problem for picture in wanted] == ["", ""]

    def test_a_picture_that_cannot_be_read_has_a_reason(self, tmp_path: Path) -> None:
        data = jpeg(1)
        tar = write_tar(tmp_path / "a.tar", {"a.jpg": data, "cut.jpg": data[:20], "z.jpg": jpeg(9)})
        short = write_tar(tmp_path / "b.tar", {"a.jpg": data, "b.jpg": jpeg(2)})
        short.write_bytes(short.read_bytes()[:2000])
        wanted = {
            "not found": self.picture(tmp_path / "gone.tar", "a.jpg", data),
            "does not hold it any more": self.picture(tar, "b.jpg", data),
            "another picture": self.picture(tar, "a.jpg", jpeg(2)),
            "cannot be decoded": self.picture(tar, "cut.jpg", data[:20]),
            "cannot be read": self.picture(short, "b.jpg", jpeg(2)),
            "not found ": self.picture(tmp_path / "folder", "a.jpg", data),
            "": self.picture(tar, "z.jpg", jpeg(9)),
        }
        found = thumbnails.fetch(wanted.values())
        for said, picture in wanted.items():
            assert said.strip() in found[picture].problem
            assert bool(found[picture].problem) == bool(said)

    def test_a_loose_picture_that_was_deleted_takes_no_other_with_it(self, tmp_path: Path) -> None:
        members = {f"{n}.jpg": jpeg(n) for n in range(3)}
        folder = write_folder(tmp_path / "card.zip", members)
        wanted = [self.picture(folder, key, data) for key, data in members.items()]
        (folder / "1.jpg").unlink()
        found = thumbnails.fetch(wanted, {str(folder)})
        assert [bool(found[picture].data_uri) for picture in wanted] == [True, False, True]
        assert "does not hold it any more" in found[wanted[1]].problem

    @pytest.mark.parametrize("scheme", ["http://127.0.0.1:{port}/a.tar", "simplecache::http://127.0.0.1:{port}/a.tar"])
    def test_only_shards_of_the_ledger_are_read_and_no_server_is_asked(self, scheme: str, tmp_path: Path) -> None:
        data = jpeg(1)
        tar = write_tar(tmp_path / "a.tar", {"a.jpg": data})
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            url = scheme.format(port=server.getsockname()[1])
            for shards in (set[str](), {url}):
                picture = self.picture(url, "a.jpg", data)
                assert "is not read" in thumbnails.fetch([picture], shards)[picture].problem
            with pytest.raises(TimeoutError):
                server.accept()
        picture = self.picture(tar, "a.jpg", data)
        assert "no shard of these results" in thumbnails.fetch([picture], set())[picture].problem

    def test_the_shards_of_rescored_results_are_those_of_the_results_that_they_come_from(self, tmp_path: Path) -> None:
        plant(f"{tmp_path}/a", "fen/c1", [seen("a.jpg")], archive=f"{tmp_path}/in")
        write_result(f"{tmp_path}/a", f"{tmp_path}/in/loose", "loose/images", [seen("b.jpg")], COLUMNS)
        known = {f"{tmp_path}/in/site=fen/c1/1.tar", f"{tmp_path}/in/loose"}
        assert thumbnails.known_shards(dataset.find(f"{tmp_path}/a")) == known
        for before, after in (("a", "b"), ("b", "c")):
            assert rescore.main([f"{tmp_path}/{before}", f"{tmp_path}/{after}", "--temperature", "2"]) == 0
            assert thumbnails.known_shards(dataset.find(f"{tmp_path}/{after}")) == known

    def test_a_thumbnail_is_small(self, tmp_path: Path) -> None:
        data = jpeg(1, (2000, 1000))
        shard = write_tar(tmp_path / "a.tar", {"a.jpg": data})
        picture = self.picture(shard, "a.jpg", data)
        thumbnail = thumbnails.fetch([picture])[picture]
        assert (thumbnail.width, thumbnail.height) == (320, 160)
        assert len(thumbnail.data_uri) < 20_000


class TestClips:
    @staticmethod
    def still(shard: Path, key: str, data: bytes, seconds: float) -> Picture:
        return Picture(str(shard), key, sha256(data).digest(), seconds)

    def test_a_still_is_the_frame_of_its_second_from_every_kind_of_shard(self, tmp_path: Path) -> None:
        film, tall = clip(frames=30), clip(frames=3, rotation=90, muxer="mov")
        members = {"a.jpg": jpeg(1), "b.mp4": film, "cut.mp4": b"", "tall.mov": tall, "picture.mp4": jpeg(2)}
        writers = {"a.tar": write_tar, "a.zip": write_zip, "a.parquet": write_parquet, "a": write_folder}
        shards = [write(tmp_path / name, members) for name, write in writers.items()]
        of_second_2 = [self.still(shard, "b.mp4", film, 2.0) for shard in shards]
        tar = shards[0]
        others = {
            "another picture": self.still(tar, "b.mp4", tall, 0.0),
            "cannot be decoded (empty": self.still(tar, "cut.mp4", b"", 0.0),
            "does not hold it any more": self.still(shards[1], "gone.mp4", film, 0.0),
            "not found": self.still(tmp_path / "gone.tar", "b.mp4", film, 0.0),
        }
        turned, named_like_one = (
            self.still(shards[3], "tall.mov", tall, 0.1),
            self.still(tar, "picture.mp4", jpeg(2), 0),
        )
        of_first = thumbnails.fetch([others.pop("another picture")])
        assert [found.problem for found in of_first.values()] == [
            "it is another picture now than the one that was classified"
        ]
        found = thumbnails.fetch([*of_second_2, *others.values(), turned, named_like_one])
        whole = dict(every_frame(shards[3] / "b.mp4"))
        assert {found[picture].problem for picture in of_second_2} == {""}
        for picture in of_second_2:
            assert (found[picture].width, found[picture].height) == (176, 144)
            differences = {
                seconds: np.abs(pixels(found[picture]).astype(int) - frame).mean() for seconds, frame in whole.items()
            }
            assert min(differences, key=lambda seconds: differences[seconds]) == 2.0
        assert (found[turned].width, found[turned].height) == (144, 176)
        assert (found[named_like_one].width, found[named_like_one].height) == (96, 72)
        for said, picture in others.items():
            assert said in found[picture].problem

    def test_a_clip_that_finds_no_room_says_so_and_the_store_is_asked_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        film = clip(frames=1)
        wanted = [self.still(write_tar(tmp_path / f"{n}.tar", {"a.mp4": film}), "a.mp4", film, 0.0) for n in range(9)]
        photograph = Picture(str(write_tar(tmp_path / "z.tar", {"a.jpg": jpeg(1)})), "a.jpg", sha256(jpeg(1)).digest())
        monkeypatch.setattr("tempfile.tempdir", "/nowhere")
        found = thumbnails.fetch([*wanted, photograph])
        assert all("/nowhere: a clip cannot be copied there" in found[picture].problem for picture in wanted)
        assert found[photograph].problem == ""


def pixels(thumbnail: Thumbnail) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail.data_uri.partition(",")[2]))))


def fix_checksums(tar: bytes) -> bytes:
    """The headers of a tar whose names were changed."""
    blocks = bytearray(tar)
    for start in range(0, len(tar), 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return bytes(blocks)
