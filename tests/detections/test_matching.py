"""A name of a detector's file is led to the shard and the key that it means, and to none where it may mean two."""

import unicodedata
from pathlib import Path

import pytest

from tests.support.archives import pictures, write_folder, write_tar, write_zip
from trapline.detections.matching import ImageMatcher, composed, keys
from trapline.sources.shards import Shard, discover


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two tars of one name, a zip and two folders."""
    root = tmp_path / "archive"
    write_tar(root / "site=1/0007.tar", pictures(1))
    write_tar(root / "site=2/0007.tar", pictures(1))
    write_zip(root / "site=2/card.zip", pictures(1, "A/"))
    write_folder(root / "site=3/cam", pictures(1, ""))
    write_folder(root / "site=3/loose", pictures(1, ""))
    return root


def find(archive: Path, name: str, inputs: str = "") -> tuple[str, str, int] | None:
    """The shard, relative to the archive, the key and the rank."""
    output = str(archive.parent / "out")
    shards = discover([f"{archive}{inputs}"], output).shards
    found = ImageMatcher(shards, output).find(name)
    return found and (shards[found[0]].uri.removeprefix(f"{archive}/"), *found[1:])


@pytest.mark.parametrize(
    ("name", "shard", "key", "rank"),
    [
        ("{archive}/site=1/0007.tar#DCIM/1.JPG", "site=1/0007.tar", "DCIM/1.JPG", 0),
        ("{archive}/site=3/cam/1.JPG", "site=3/cam", "1.JPG", 0),
        ("site=1/0007.tar/DCIM/1.JPG", "site=1/0007.tar", "DCIM/1.JPG", 1),
        ("site=1/0007.tar#only#1.JPG", "site=1/0007.tar", "only#1.JPG", 1),
        ("site=3/cam/1.JPG", "site=3/cam", "1.JPG", 1),
        ("archive/site=2/0007.tar/1.JPG", "site=2/0007.tar", "1.JPG", 2),
        ("card.zip#A/1.JPG", "site=2/card.zip", "A/1.JPG", 2),
        ("loose/1.JPG", "site=3/loose", "1.JPG", 2),
        ("card/A/1.JPG", "site=2/card.zip", "A/1.JPG", 3),
        ("site=1/0007/DCIM/1.JPG", "site=1/0007.tar", "DCIM/1.JPG", 3),
        ("C:/Users/ann/site=2/0007.tar/DCIM/1.JPG", "site=2/0007.tar", "DCIM/1.JPG", 4),
        ("/mnt/nas/2024/site=3/cam/1.JPG", "site=3/cam", "1.JPG", 4),
        ("/Volumes/cards/card/A/1.JPG", "site=2/card.zip", "A/1.JPG", 4),
    ],
)
def test_a_name_means_the_shard_that_it_names_in_whatever_form(
    archive: Path, name: str, shard: str, key: str, rank: int
) -> None:
    assert find(archive, name.format(archive=archive)) == (shard, key, rank)


@pytest.mark.parametrize(
    "name",
    [
        "0007.tar/DCIM/1.JPG",  # of two shards
        "/mnt/0007.tar/DCIM/1.JPG",
        "0007/DCIM/1.JPG",
        "DCIM/1.JPG",  # of a shard that is not named
        "site=3/cam/DCIM/1.JPG",  # a folder's images lie directly in it
        "site=9/1.tar#A/1.JPG",
        "",
    ],
)
def test_a_name_that_may_mean_two_shards_or_none_is_led_nowhere(archive: Path, name: str) -> None:
    assert find(archive, name) is None


def test_where_there_is_one_shard_a_name_is_its_key(archive: Path) -> None:
    assert find(archive, "DCIM/1.JPG", "/site=1") == ("site=1/0007.tar", "DCIM/1.JPG", ImageMatcher.BY_KEY)
    assert find(archive, "0007.tar/DCIM/1.JPG", "/site=1") == ("site=1/0007.tar", "DCIM/1.JPG", 1)


@pytest.mark.parametrize(("written", "there"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_shard_is_found_in_another_normal_form_of_unicode(archive: Path, written: str, there: str) -> None:
    shard = unicodedata.normalize(there, "Frühling")
    write_folder(archive / shard, pictures(1, ""))
    for prefix in ("", "/mnt/x/"):
        found = find(archive, unicodedata.normalize(written, f"{prefix}Frühling/1.JPG"))
        assert found is not None
        assert found[:2] == (shard, "1.JPG")


def test_of_two_shards_that_differ_in_their_normal_form_the_one_that_is_named_is_meant(archive: Path) -> None:
    forms = [unicodedata.normalize(form, "Frühling") for form in ("NFC", "NFD")]
    for form in forms:
        write_folder(archive / form, pictures(1, ""))
    found = [find(archive, f"{form}/1.JPG") for form in forms]
    assert [each and each[0] for each in found] == forms
    assert find(archive, f"/mnt/x/{forms[0]}/1.JPG") is None  # which of them, another machine's path does not say


@pytest.mark.parametrize(
    ("name", "inputs", "may"),
    [
        ("A/1.JPG", "", True),
        ("card/A/1.JPG", "", True),
        ("other.tar/1.JPG", "", False),  # names an archive itself
        ("1.tar", "", True),  # a key may end like one
        ("1.JPG", "/site=3", False),  # no archive is there
    ],
)
def test_a_whole_name_may_be_a_key_where_there_are_archives_and_it_names_none(
    archive: Path, name: str, inputs: str, may: bool
) -> None:
    output = str(archive.parent / "out")
    shards = discover([f"{archive}{inputs}"], output).shards
    assert ImageMatcher(shards, output).may_be_a_key(name) is may


def test_the_keys_of_a_shard_are_those_that_can_be_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", pictures(6))
    assert [*keys(discover([str(path)], str(tmp_path / "out")).shards[0])] == [*pictures(6)]
    path.write_bytes(path.read_bytes()[:9000])
    left = [*keys(discover([str(path)], str(tmp_path / "out")).shards[0])]
    assert left
    assert left == [*pictures(6)][: len(left)]
    assert len(left) < 6
    assert [*keys(Shard(str(tmp_path / "gone.tar"), "tar", 1, "1-1", "out"))] == []


def test_composed_names_of_both_forms_are_one() -> None:
    assert {composed(unicodedata.normalize(form, "Frühling")) for form in ("NFC", "NFD")} == {"Fr\u00fchling"}
