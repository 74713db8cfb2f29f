import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.rescoring import label_file, labels
from trapline.analysis.rescoring.labels import Examples, held_out
from trapline.errors import UsageError
from trapline.storage import store

CLASSES = ("owl", "robin")


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def image(key: str, value: float, serial: str | None = None, content: str | None = None) -> Planted:
    facts = {"content_sha256": sha(content or key), "camera_serial": serial}
    return Planted(key, (value, 0), (value, -value, 1), facts=facts)


def archive(output: str) -> dataset.Results:
    of = columns(CLASSES, 3)
    write_result(output, "/in/fen/cam1/a.tar", "fen/cam1/a.tar", [image(f"{n}.jpg", n) for n in range(3)], of)
    b = [image("x#1.jpg", 10, "SN7"), Planted("broken.jpg", status="failed", error="empty: x"), image("y.jpg", 11)]
    write_result(output, "/in/fen/cam2#odd/b.tar", "fen/cam2#odd/b.tar", b, of)
    write_result(
        output, "/in/fen/cam3", "fen/cam3/images", [image("z.jpg", 20), image("copy.jpg", 1, content="1.jpg")], of
    )
    return dataset.find(output)


def examples(folder: Path, text: str, vector: str = "embedding", output: str | None = None) -> Examples:
    (folder / "labels.csv").write_text(text)
    found = archive(output or str(folder / "out"))
    return labels.join(label_file.read(str(folder / "labels.csv")), found, vector)


LABELLED = """image_uri,species
/in/fen/cam3#z.jpg,wren
/in/fen/cam2#odd/b.tar#x#1.jpg,robin
/in/fen/cam2#odd/b.tar#broken.jpg,robin
/in/fen/cam1/a.tar#2.jpg,owl
/in/nowhere.tar#1.jpg,owl
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_labels_find_their_embeddings_by_uri(kind: str, tmp_path: Path, bucket: str) -> None:
    found = examples(tmp_path, LABELLED, output=f"{bucket}/out" if kind == "s3" else None)
    assert found.species.tolist() == ["wren", "robin", "owl"]
    assert found.vectors.tolist() == [[20, -20, 1], [10, -10, 1], [2, -2, 1]]
    assert found.cameras.tolist() == ["/fen/cam3", "SN7", "/fen/cam1"]
    assert (found.given, found.unusable, found.repeated) == (5, 1, 0)


def test_or_their_probabilities(tmp_path: Path) -> None:
    found = examples(tmp_path, LABELLED, "probabilities")
    assert found.vectors[:, 1] == pytest.approx(1 / (1 + np.exp([20, 10, 2])), rel=1e-5)


def test_a_content_hash_counts_once_however_many_copies_there_are(tmp_path: Path) -> None:
    found = examples(tmp_path, f"species,content_sha256\nowl,{sha('1.jpg').hex().upper()}\n")
    assert found.uris.tolist() == ["/in/fen/cam1/a.tar#1.jpg"]
    assert (len(found), found.repeated) == (1, 0)


def test_two_labels_of_copies_of_one_picture_count_once(tmp_path: Path) -> None:
    both = "image_uri,species\n/in/fen/cam1/a.tar#1.jpg,owl\n/in/fen/cam3#copy.jpg,{}\n/in/fen/cam3#z.jpg,owl\n"
    found = examples(tmp_path, both.format("owl"))
    assert (found.uris.tolist(), found.repeated) == (["/in/fen/cam1/a.tar#1.jpg", "/in/fen/cam3#z.jpg"], 1)
    with pytest.raises(UsageError, match=r"calls the same picture 'owl' in /in/fen/cam1/a.tar#1.jpg and 'robin' in"):
        examples(tmp_path, both.format("robin"))


def test_a_column_camera_goes_before_what_the_images_say(tmp_path: Path) -> None:
    found = examples(
        tmp_path, "image_uri,species,camera\n/in/fen/cam2#odd/b.tar#x#1.jpg,a,K9\n/in/fen/cam2#odd/b.tar#y.jpg,a,\n"
    )
    assert found.cameras.tolist() == ["K9", "/fen/cam2#odd"]


def test_files_whose_shard_no_label_names_are_not_opened(tmp_path: Path) -> None:
    found = archive(str(tmp_path / "out"))
    for damaged in ("fen/cam3/images", "fen/cam2#odd/b.tar"):
        (tmp_path / f"out/{damaged}.parquet").write_bytes(b"")
    (tmp_path / "l.csv").write_text("image_uri,species\n/in/fen/cam1/a.tar#2.jpg,owl\n")
    assert len(labels.join(label_file.read(str(tmp_path / "l.csv")), found, "embedding")) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image_uri,species\na#1,owl\na#1,owl\n", r"line 3: a#1 is also labelled on line 2 \(the same\)"),
        ("image_uri,species\na#1,owl\nb,owl\na#1,x\n", r"line 4: a#1 is also .* line 2 \('owl' there and 'x' here\)"),
        ("image_uri,species\na#1,\n", "line 2: lacks species"),
        ("image_uri,species\n,owl\n", "line 2: lacks image_uri"),
        ("content_sha256,species\nab,owl\n", "line 2: ab is no SHA-256 in hex"),
        (f"content_sha256,species\n{'xy' * 32},owl\n", "line 2: xyxy.* is no SHA-256 in hex"),
        ("uri,species\na,owl\n", r"has neither a column 'image_uri' \(or 'file'\) nor 'content_sha256'"),
        (
            "image_uri,species\na#1,owl\n",
            "none of its 1 labels names an image in .*out by its image_uri; the first is a#1, and an image there is "
            "/in/fen/cam1/a.tar#0.jpg",
        ),
        ("image_uri,species\n/in/fen/cam2#odd/b.tar#broken.jpg,owl\n", "all 1 images that it labels .* are failed"),
    ],
)
def test_says_what_is_wrong_with_labels(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"labels\.csv.*{complaint}"):
        examples(tmp_path, text)


PATHS = r"""file,species
z.jpg,wren
cam2#odd/b.tar/x#1.jpg,robin
.\cam1\a.tar\2.jpg,owl
/fen/cam1/a.tar/0.jpg,owl
am1/a.tar/1.jpg,owl
"""


def test_labels_are_matched_by_the_end_of_a_path(tmp_path: Path) -> None:
    found = examples(tmp_path, PATHS)
    assert dict(zip(found.uris, found.species, strict=True)) == {
        "/in/fen/cam3#z.jpg": "wren",
        "/in/fen/cam2#odd/b.tar#x#1.jpg": "robin",
        "/in/fen/cam1/a.tar#2.jpg": "owl",
        "/in/fen/cam1/a.tar#0.jpg": "owl",
    }
    assert (found.given, found.ambiguous) == (5, 0)
    assert found.vectors[:, 0].tolist() == [20, 10, 2, 0]


def test_a_path_that_several_images_end_with_is_not_used_but_one_in_full_is(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    of = columns(CLASSES, 3)
    write_result(output, "/in/a.tar", "a.tar", [image("1.jpg", 1), image("2.jpg", 2)], of)
    write_result(output, "/in/in/a.tar", "in/a.tar", [image("1.jpg", 11), image("x/2.jpg", 12)], of)
    csv = tmp_path / "labels.csv"
    csv.write_text("image_uri,species\n1.jpg,owl\n/in/a.tar#1.jpg,robin\na.tar/2.jpg,owl\n")
    found = labels.join(label_file.read(str(csv)), dataset.find(output), "embedding")
    assert (found.uris.tolist(), found.ambiguous) == (["/in/a.tar#1.jpg", "/in/a.tar#2.jpg"], 1)
    csv.write_text("image_uri,species\n1.jpg,owl\n")
    several = r"fits several images, such as 1.jpg: /in/a.tar#1.jpg and /in/in/a.tar#1.jpg; write more of the path"
    with pytest.raises(UsageError, match=several):
        labels.join(label_file.read(str(csv)), dataset.find(output), "embedding")


def test_a_clip_is_labelled_once_whatever_its_frames(tmp_path: Path) -> None:
    clip = {"media_type": "video", "content_sha256": b"c" * 32}
    rows = [image("clip.mp4", 7), image("clip.mp4", 8), image("other.jpg", 9)]
    facts = [clip, {**clip, "frame_seconds": 0.0}, {}]
    rows = [replace(row, facts={**row.facts, **more}) for row, more in zip(rows, facts, strict=True)]
    write_result(f"{tmp_path}/out", "/in/a.tar", "a.tar", rows, columns(CLASSES, 3))
    for header, key in (("file", "clip.mp4"), ("image_uri", "/in/a.tar#clip.mp4"), ("content_sha256", "63" * 32)):
        (tmp_path / "labels.csv").write_text(f"{header},species\n{key},owl\n")
        found = labels.join(label_file.read(f"{tmp_path}/labels.csv"), dataset.find(f"{tmp_path}/out"), "embedding")
        assert (found.vectors[:, 0].tolist(), found.ambiguous, found.repeated) == ([7], 0, 0)


def test_the_digest_tells_who_is_labelled_what(tmp_path: Path) -> None:
    one = examples(tmp_path, LABELLED)
    assert examples(tmp_path, LABELLED, "probabilities").digest == one.digest
    assert examples(tmp_path, LABELLED.replace("wren", "owl")).digest != one.digest


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from("xyz")), min_size=1, max_size=60)


@given(PAIRS, st.randoms())
def test_cameras_are_held_out_whole_and_leave_each_species_to_learn_from(
    pairs: list[tuple[str, str]], random: "st.Random"
) -> None:
    cameras, species = (list(part) for part in zip(*pairs, strict=True))
    chosen = held_out(cameras, species)
    rest = [(camera, name) for camera, name in pairs if camera not in chosen]
    assert {name for _, name in rest} == set(species)
    assert len(chosen) <= max(1, round(0.2 * len(set(cameras))))
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert held_out(*(list(part) for part in zip(*shuffled, strict=True))) == chosen
    plain = held_out(cameras)
    assert (len(plain) > 0) == (len(set(cameras)) > 1)
    assert plain < set(cameras)


def test_of_cameras_that_see_the_same_a_fifth_is_held_out() -> None:
    cameras = [f"cam{number}" for number in range(50)] * 3
    assert len(held_out(cameras, ["owl"] * 150)) == 10


def test_a_replaced_result_is_noticed(tmp_path: Path) -> None:
    found = archive(str(tmp_path / "out"))
    store.put(found.files[0].url, store.read_many([found.files[0].url])[0] + b" ")
    (tmp_path / "l.csv").write_text("image_uri,species\n/in/fen/cam1/a.tar#2.jpg,owl\n")
    with pytest.raises(Exception, match="changed while it was being read"):
        labels.join(label_file.read(str(tmp_path / "l.csv")), found, "embedding")
