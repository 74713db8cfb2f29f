"""Names stay names: whatever a file is called, its rows are read once, by every job, on disk and on S3."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, sql
from trapline.analysis.events import build
from trapline.analysis.events.build import Options
from trapline.analysis.events.sessions import Gap
from trapline.analysis.search import duplicates, similarity
from trapline.analysis.search.similarity import Example
from trapline.storage import store

COLUMNS = columns(["owl", "robin"], 2)
NOON = datetime(2024, 5, 17, 12)

# Printable ASCII, control characters, combining and astral characters, and those with a meaning for somebody.
CHARACTERS = st.one_of(
    st.sampled_from("[]*?{}#%&+;:,'\"$`\\!~^|<>=@ .-_"),
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="/"),
    st.sampled_from("\t\n\r\x01\x1b\x7f"),
    st.sampled_from("äa\u0308é\u0301\u200f漢🦉\U00020000"),
)
NAMES = st.text(CHARACTERS, min_size=1, max_size=40).filter(lambda name: name not in (".", ".."))
TRICKY = ["card[1]", "card1", "a*", "ab", "a?", "q::copy", "v?versionId=3", "Camera #1", "Camera #2", r"a\b[c]", "%41",
          "A", "{a,b}", "-x", ".hidden", "x" * 200, "it's", 'quo"te', "$HOME", "`id`", "new\nline", "🦉", "site=1"]  # fmt: skip
# S3 itself takes a key with these for another one, or refuses it in XML.
REFUSED_BY_S3 = {"\r", "\x01", "\x1b", "\x7f", "\n", "\t"}


def check(output: str, names: list[str]) -> None:
    """Plant a shard with 1, 2, 3 … images for each name, and count them in every job."""
    images = {}
    for number, name in enumerate(names, 1):
        rows = [
            Planted(
                f"{name}/{image}#{number}.jpg", (image, 0), (1, image),
                facts={"captured_at": NOON + timedelta(hours=number), "content_sha256": f"{image:032}".encode()},
            )
            for image in range(number)
        ]  # fmt: skip
        shard = f"/in/{name}"
        write_result(f"{output}/results", shard, f"{name}/images", rows, COLUMNS)
        images[shard] = number
    found = dataset.find(f"{output}/results")
    assert {file.shard: file.images for file in found.files} == images

    connection = sql.connect()
    dataset.view(connection, found)
    assert dict(connection.sql("SELECT shard, count(*) FROM images GROUP BY shard").fetchall()) == images
    per_file = dict(connection.sql("SELECT filename, count(*) FROM images GROUP BY filename").fetchall())
    assert per_file == {file.url: file.images for file in found.files}

    exact = duplicates.exact(connection, found)
    copies = Counter(str(image) for number in images.values() for image in range(number))
    expected = sum(count for count in copies.values() if count > 1)
    assert connection.sql(f"SELECT count(*) FROM {exact}").fetchall() == [(expected,)]

    first = f"/in/{names[-1]}#{names[-1]}/0#{len(names)}.jpg"
    (like,) = similarity.examples(connection, found, [first], None)
    assert isinstance(like, Example)
    assert like.image_uri == first
    nearest = similarity.nearest(connection, found, [like], 10_000)
    assert connection.sql(f"SELECT count(*) FROM {nearest}").fetchall() == [(sum(images.values()) - 1,)]

    account = build.build(found, f"{output}/events", Options(Gap(), ["/in/{deployment}"]))
    deployments = [name.strip(" ") for name in names]
    assert account.images + account.unassigned.total() == sum(images.values())
    assert account.deployments == len({*deployments} - {""})
    tables = [entry.url for entry in store.list_files(f"{output}/events/events")]
    query = f"SELECT deployment, sum(frames) FROM {sql.read_parquet(tables)} GROUP BY ALL"
    rows = connection.sql(query).fetchall()
    frames: Counter[str] = Counter()
    for deployment, number in zip(deployments, images.values(), strict=True):
        frames[deployment] += number
    del frames[""]
    assert dict(rows) == frames


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(TRICKY)
@example(["A\u0301", "\u00c1"])  # which look the same
@given(st.lists(NAMES, min_size=2, max_size=6, unique=True))
def test_every_job_counts_each_file_once_on_disk(tmp_path: Path, names: list[str]) -> None:
    check(str(tmp_path / uuid4().hex), names)


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([*(name for name in TRICKY if not REFUSED_BY_S3 & {*name}), "ridge [east]"])
@given(st.lists(NAMES.filter(lambda name: not REFUSED_BY_S3 & {*name}), min_size=2, max_size=4, unique=True))
def test_every_job_counts_each_file_once_on_s3(bucket: str, names: list[str]) -> None:
    check(f"{bucket}/{uuid4().hex}", names)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_the_folder_of_the_results_is_a_name_too(kind: str, tmp_path: Path, bucket: str) -> None:
    check(f"{bucket if kind == 's3' else tmp_path}/ridge [east] #2 50%", ["a", "b"])
