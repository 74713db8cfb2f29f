from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.archives import write_folder, write_tar
from tests.support.servers import S3Server
from tests.support.store_files import folder_for_all, unprivileged
from trapline.errors import OutputConflict, StorageError, UsageError
from trapline.sources.lookup import read_media
from trapline.sources.records import read
from trapline.sources.shards import Shard, discover, folder_identity, folder_members
from trapline.storage import store


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def output(tmp_path: Path) -> str:
    return f"{tmp_path}/output"


def outputs(inputs: list[str], output: str) -> list[str]:
    """Where the shards go, below OUTPUT, in the order of their URIs."""
    return [shard.output.removeprefix(f"{output}/") for shard in discover(inputs, output).shards]


def test_outputs_mirror_the_input(archive: Path, output: str) -> None:
    fill(archive, "site=12/cam3/0007.tar", "b.zip", "c.parquet", "d.tar.gz", "card/DCIM/1.jpg", "card/DCIM/2.jpg")
    expected = {
        "b.zip": ("zip", "b.zip.parquet"),
        "c.parquet": ("parquet", "c.parquet.parquet"),
        "card/DCIM": ("folder", "card/DCIM/images.parquet"),
        "d.tar.gz": ("tar", "d.tar.gz.parquet"),
        "site=12/cam3/0007.tar": ("tar", "site=12/cam3/0007.tar.parquet"),
    }
    for given in [str(archive), f"{archive}/", f"file://{archive}"]:
        shards = discover([given], output).shards
        found = {
            shard.uri.removeprefix(f"{archive}/"): (shard.format, shard.output.removeprefix(f"{output}/"))
            for shard in shards
        }
        assert found == expected
        assert list(found) == sorted(found)


def test_a_file_is_mirrored_by_its_name(archive: Path, output: str) -> None:
    fill(archive, "site=12/a.tar")
    assert outputs([f"{archive}/site=12/a.tar"], output) == ["a.tar.parquet"]


@pytest.mark.parametrize("letter", ["x", "鳥"])
def test_a_name_that_would_be_too_long_is_cut_and_stays_unique(letter: str, archive: Path, output: str) -> None:
    longest = letter * (250 // len(letter.encode()))
    fill(archive, f"{longest}.tar", f"{longest}.zip", f"{longest[1:]}{'y' * len(letter.encode())}.tar", "a.tar")
    found = outputs([str(archive)], output)
    assert len(set(found)) == 4
    assert "a.tar.parquet" in found
    for name in found:
        fill(Path(output), name)  # no name is longer than this file system allows
    assert outputs([str(archive)], output) == found


def test_a_pattern_is_mirrored_from_its_first_wildcard_on(archive: Path, output: str) -> None:
    fill(archive, "2023/cam1/a.tar", "2023/cam2/a.tar", "2024/cam1/a.tar", "2023/cam1/a.txt")
    assert outputs([f"{archive}/2023/*/*.tar"], output) == ["cam1/a.tar.parquet", "cam2/a.tar.parquet"]
    assert outputs([f"{archive}/202?/cam1"], output) == ["2023/cam1/a.tar.parquet", "2024/cam1/a.tar.parquet"]


def test_a_folder_named_like_a_pattern_is_an_input(archive: Path, output: str) -> None:
    fill(archive, "cam[1]/a.tar", "cam[1]/b.jpg", "cam1/no.tar")
    assert outputs([f"{archive}/cam[1]"], output) == ["images.parquet", "a.tar.parquet"]


def test_a_folder_of_images_is_one_shard_whole_though_a_pattern_matches_some(archive: Path, output: str) -> None:
    fill(archive, "DCIM/1a.jpg", "DCIM/1a.json", "DCIM/2a.jpg", "DCIM/more/3a.jpg")
    (whole, _) = discover([str(archive)], output).shards
    (part,) = discover([f"{archive}/DCIM/1*"], output).shards
    assert (part.uri, part.identity, part.size) == (whole.uri, whole.identity, 2)
    assert whole.uri == f"{archive}/DCIM"


def test_a_list_names_inputs_and_is_mirrored_from_the_root(
    archive: Path, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(archive, "cam1/a.tar", "cam2/b.tar", "cam3/c.tar", "cam3/#d.tar")
    names = tmp_path / "list.txt"
    names.write_bytes(f"\ufeff{archive}/cam1\r\n\r\n  # cam2 was stolen\r\narchive/cam3/*.tar  \r\n".encode())
    monkeypatch.chdir(tmp_path)
    below = str(archive).lstrip("/")
    expected = [f"{below}/cam1/a.tar.parquet", f"{below}/cam3/#d.tar.parquet", f"{below}/cam3/c.tar.parquet"]
    assert outputs([f"@{names}"], output) == expected
    names.write_text(f"{archive}/cam3/c.tar\n")
    assert outputs(["@list.txt"], output) == expected[2:]  # whose other lines come and go


def test_a_list_of_many_inputs_is_read_whole(archive: Path, output: str, tmp_path: Path) -> None:
    names = [f"{number:03d}.tar" for number in range(300)]
    fill(archive, *names)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(f"{archive}/{name}" for name in reversed(names)))
    assert [Path(shard.uri).name for shard in discover([f"@{listed}"], output).shards] == names


def test_a_list_with_a_line_that_leads_nowhere_stops_the_run(archive: Path, output: str, tmp_path: Path) -> None:
    fill(archive, "a.tar")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{archive}/a.tar\n{archive}/typo.tar\n")
    with pytest.raises(StorageError, match=r"typo\.tar"):
        discover([f"@{listed}"], output)


def test_a_shard_named_twice_is_one_shard(archive: Path, output: str) -> None:
    fill(archive, "cam1/a.tar")
    assert outputs([str(archive), f"{archive}/cam1"], output) == ["cam1/a.tar.parquet"]


def test_junk_is_ignored_and_counted(archive: Path, output: str) -> None:
    fill(
        archive, "a.tar", "._a.tar", "Thumbs.db", "notes.txt", "more.TXT", "__MACOSX/b.tar", "DCIM/1.jpg", "DCIM/1.dat"
    )
    found = discover([str(archive)], output)
    assert [shard.format for shard in found.shards] == ["folder", "tar"]
    # What lies beside loose images is counted when they are read.
    assert found.ignored == {".txt": 2, "._*": 1, "Thumbs.db": 1, "__MACOSX": 1}


def test_an_output_inside_the_input_is_no_input(archive: Path) -> None:
    fill(archive, "a.tar", "results/a.tar.parquet", "results/b.jpg", "results.tar")
    found = discover([str(archive)], f"{archive}/results/")
    assert [Path(shard.uri).name for shard in found.shards] == ["a.tar", "results.tar"]
    assert not found.ignored


@pytest.mark.parametrize("name", ["", "/sub", "/sub/a.tar"])
def test_an_input_inside_the_output_is_refused(name: str, archive: Path) -> None:
    fill(archive, "sub/a.tar")
    with pytest.raises(UsageError, match="OUTPUT"):
        discover([f"{archive}{name}"], str(archive))


@pytest.mark.parametrize("name", ["DCIM/1.jpg", "DCIM/*.JPG"])
def test_single_images_are_refused(name: str, archive: Path, output: str) -> None:
    fill(archive, "DCIM/1.jpg")
    with pytest.raises(UsageError, match="give the folder"):
        discover([f"{archive}/{name}"], output)


def test_an_input_without_shards_is_refused(archive: Path, output: str) -> None:
    fill(archive, "notes.txt", "lonely.json")
    with pytest.raises(UsageError, match="holds no shard"):
        discover([str(archive)], output)


def test_two_shards_of_one_output_are_refused(archive: Path, output: str) -> None:
    fill(archive, "2023/cam/a.tar", "2024/cam/a.tar")
    with pytest.raises(OutputConflict, match=r"2023/cam/a\.tar.*2024/cam/a\.tar"):
        discover([f"{archive}/2023", f"{archive}/2024"], output)


@pytest.mark.parametrize("names", [("cam/1.jpg", "cam/images.parquet/2.jpg"), ("a.tar", "a.tar.parquet/b/2.jpg")])
def test_a_result_and_a_folder_of_results_cannot_have_one_name(
    names: tuple[str, ...], archive: Path, output: str, bucket: str
) -> None:
    fill(archive, *names, "x.parquet/1.jpg")
    with pytest.raises(OutputConflict, match=r"would be the result of .*, and the folder of that of .*; classify"):
        discover([str(archive)], output)
    assert len(discover([str(archive)], f"{bucket}/out").shards) == 3


def test_a_folder_whose_name_is_no_utf8_is_refused(archive: Path, output: str) -> None:
    fill(archive, "f\udcfcr/a.tar")
    with pytest.raises(UsageError, match=r"f\\udcfcr.*rename it"):
        discover([str(archive)], output)


def test_no_key_leads_out_of_the_output(output: str) -> None:
    key = "memory://bucket/x/../../../etc/./a.tar"
    store.put(key, b"x")
    store.put("memory://bucket/x//b.tar", b"x")
    assert outputs(["memory://bucket/x"], output) == ["%2E%2E/%2E%2E/%2E%2E/etc/%2E/a.tar.parquet", "b.tar.parquet"]


def test_results_have_names_that_the_patterns_of_duckdb_match(tmp_path: Path) -> None:
    """Its `**` skips whatever has a backslash in its name."""
    for name in ("a\\b/1.jpg", "c/d\\e.tar", "f*?/g{h,i}.tar"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    results = [Path(shard.output) for shard in discover([str(tmp_path / "in")], str(tmp_path / "out")).shards]
    for path in results:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [1]}), path)
    assert len({*results}) == 3
    assert duckdb.execute(f"SELECT sum(n) FROM '{tmp_path}/out/**/*.parquet'").fetchall() == [(3,)]


@pytest.mark.parametrize("folder", ["one/", "two/cam/", "three/cam//"])
def test_loose_images_under_an_empty_segment_are_read(folder: str, output: str) -> None:
    store.put(f"memory://bucket/{folder}/1.jpg", b"one")
    (found,) = discover([f"memory://bucket/{folder.partition('/')[0]}"], output).shards
    assert found.uri.endswith(f"bucket/{folder}")
    assert [(record.key, record.data) for record in read(found, Counter())] == [("1.jpg", b"one")]
    assert list(read_media(found.uri, ["1.jpg"])) == [("1.jpg", b"one")]


def test_names_that_look_like_something_else_are_shards_all_the_same(archive: Path, output: str) -> None:
    names = ["site::1", "cam?versionId=2", "a*b", "card[1]", "Camera #1", "x%20y", "b\\c", "--dry-run", "é 😀"]
    for name in names:
        write_folder(archive / name, {"1.jpg": name.encode()})
        write_tar(archive / "tars" / f"{name}.tar", {"1.jpg": name.encode()})
    found = discover([str(archive)], output).shards
    read_names = [record.data.decode() for shard in found for record in read(shard, Counter()) if record.data]
    assert sorted(read_names) == sorted([*names, *names])
    assert len({shard.output for shard in found}) == len(found) == 2 * len(names)
    assert [next(read_media(shard.uri, ["1.jpg"]))[1].decode() for shard in found] == read_names


# Identity


def the_shard(folder: Path, output: str) -> Shard:
    (shard,) = discover([str(folder)], output).shards
    return shard


def test_an_archive_is_identified_by_size_and_time(archive: Path, output: str) -> None:
    before = the_shard(fill(archive, "a.tar"), output)
    assert before == the_shard(archive, output)
    (archive / "a.tar").write_bytes(b"other")
    assert before.identity != the_shard(archive, output).identity


@pytest.mark.parametrize("change", ["2.jpg", "1.json", "1.jpg"])
def test_a_folder_changes_with_its_images_and_sidecars(change: str, archive: Path, output: str) -> None:
    before = the_shard(fill(archive, "1.jpg"), output)
    (archive / change).write_bytes(b"new")
    assert before.identity != the_shard(archive, output).identity


def test_a_folder_stays_the_same_when_junk_comes(archive: Path, output: str) -> None:
    before = the_shard(fill(archive, "1.jpg"), output)
    assert before == the_shard(fill(archive, "Thumbs.db", "1.dat", "._1.jpg"), output)


def test_images_of_names_that_are_no_utf8_make_a_shard(archive: Path, output: str) -> None:
    shard = the_shard(fill(archive, "f\udcfcr.jpg", "b.jpg"), output)
    assert shard.identity.startswith("2-")


def test_reading_a_folder_finds_the_identity_that_listing_gave_it(archive: Path, output: str) -> None:
    shard = the_shard(fill(archive, "1.jpg", "1.json", "2.jpg", "2.dat", "2.tar.bak"), output)
    assert shard.identity == folder_identity(*folder_members(store.list_folder(shard.uri), Counter()))


# S3


def test_an_s3_prefix_is_mirrored_like_a_folder(bucket: str, output: str, s3: S3Server) -> None:
    for key in ["n/site=12/a.tar", "n/site=1/card/1.jpg", "n/site=1/card/1.json", "other/b.tar", "top.jpg"]:
        store.put(f"{bucket}/{key}", b"x")
    s3.filesystem().call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key="n/site=1/card/", Body=b"")
    assert outputs([f"{bucket}/n"], output) == ["site=1/card/images.parquet", "site=12/a.tar.parquet"]
    assert outputs([f"{bucket}/n/site=1*"], output) == ["site=1/card/images.parquet", "site=12/a.tar.parquet"]
    assert outputs([bucket], f"{bucket}/n") == ["images.parquet", "other/b.tar.parquet"]
    (card, _) = discover([f"{bucket}/n/"], f"{bucket}/out").shards
    assert (card.uri, card.output) == (f"{bucket}/n/site=1/card", f"{bucket}/out/site=1/card/images.parquet")
    assert card.identity == folder_identity(*folder_members(store.list_folder(card.uri), Counter()))


def test_an_s3_list_is_mirrored_with_its_bucket(bucket: str, output: str) -> None:
    store.put(f"{bucket}/cam/a.tar", b"x")
    store.put(f"{bucket}/list.txt", f"{bucket}/cam\n".encode())
    assert outputs([f"@{bucket}/list.txt"], output) == [f"{bucket.removeprefix('s3://')}/cam/a.tar.parquet"]


# Junk, and where it is judged


def test_junk_folders_are_ignored_and_counted(archive: Path, output: str) -> None:
    fill(
        archive,
        "#recycle/1.jpg",
        "cam/@Recycle/2.jpg",
        "cam/1.jpg",
        ".Trash-1000/files/b.tar",
        "recycle/3.jpg",
        "c.tar",
    )
    found = discover([str(archive)], output)
    assert [Path(shard.uri).name for shard in found.shards] == ["c.tar", "cam", "recycle"]
    assert found.ignored == {"#recycle": 1, "@Recycle": 1, ".Trash-1000": 1}


def test_junk_folders_need_not_be_readable(output: str) -> None:
    with folder_for_all() as root:
        fill(root, "disk/lost+found/x/1.jpg", "disk/cam/1.jpg")
        (root / "disk/cam/.thumbnails").symlink_to(root / "disk/lost+found/x")
        (root / "disk/lost+found").chmod(0)
        with unprivileged():
            assert outputs([str(root / "disk")], output) == ["cam/images.parquet"]
            assert outputs([f"{root}/*/"], output) == ["disk/cam/images.parquet"]
            assert outputs([f"{root}/disk/cam/*"], output) == ["images.parquet"]
            with pytest.raises(StorageError, match="access denied"):
                discover([str(root / "disk/lost+found")], output)


def test_an_input_may_lie_in_a_snapshot(tmp_path: Path, output: str) -> None:
    fill(tmp_path, ".snapshot/nightly/photos/a.tar", ".snapshot/nightly/photos/cam/1.jpg")
    root = f"{tmp_path}/.snapshot/nightly/photos"
    assert outputs([root], output) == ["a.tar.parquet", "cam/images.parquet"]
    assert outputs([f"{root}/*"], output) == ["a.tar.parquet", "cam/images.parquet"]
    assert outputs([f"{root}/a.tar"], output) == ["a.tar.parquet"]
    assert outputs([str(tmp_path / ".snapshot/nightly")], output) == [
        "photos/a.tar.parquet",
        "photos/cam/images.parquet",
    ]
    with pytest.raises(UsageError, match="holds no shard"):
        discover([str(tmp_path)], output)


def test_lonely_sidecars_are_counted(archive: Path, output: str) -> None:
    fill(archive, "a.tar", "notes/1.json", "notes/2.json")
    assert discover([str(archive)], output).ignored == {"(unmatched .json sidecar)": 2}


def test_kinds_of_ignored_files_are_limited(archive: Path, output: str) -> None:
    fill(archive, "a.tar", *(f"x.{number:04d}" for number in range(150)))
    ignored = discover([str(archive)], output).ignored
    assert len(ignored) == 101
    assert ignored["(other)"] == 50


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.tar", "https://host/archive", "http://host/a.tar?x=1"])
def test_a_web_server_is_no_input(url: str, output: str) -> None:
    with pytest.raises(UsageError, match="web servers cannot be listed"):
        discover([url], output)


def test_the_image_column_travels_with_the_shard(archive: Path, output: str) -> None:
    fill(archive, "a.parquet", "b.tar")
    assert [shard.image_column for shard in discover([str(archive)], output, "photo").shards] == ["photo", "photo"]
