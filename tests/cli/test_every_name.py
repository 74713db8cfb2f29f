"""Whatever a file is called, it is the same number of images in every job: classified once, and read again by all.

Names are written down, and drawn; TRAPLINE_NAMES_SEED draws others, and TRAPLINE_NAMES more of them.
"""

import csv
import io
import json
import os
import random
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.support.archives import jpeg
from tests.support.nights import seeded
from trapline.analysis import dataset, sql
from trapline.cli import app
from trapline.storage import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("ray_session")]

DRAWN = int(os.environ.get("TRAPLINE_NAMES", "8"))
SEED = int(os.environ.get("TRAPLINE_NAMES_SEED", "20261130"))

ASCII = "".join(map(chr, range(0x20, 0x7F))).replace("/", "")
CONTROL = "".join(map(chr, [*range(1, 0x20), 0x7F]))
WIDE = "äéa\u0308e\u0301\u200f\u202e漢字🦉\U00020000\ufeff\u00a0\u2028"
WRITTEN = [
    ASCII, f"a{CONTROL}z", WIDE, "card[1]", "card1", "a*", "ab", "a?", "a{b,c}", "Camera #1", "Camera #2", "site=1",
    "site=2", "q::copy", "simplecache::x", "v?versionId=3", "%41", "A", "a%2Fb", "+a b", "a\\b[c]", "C:\\x", "it's",
    'quo"te', "$HOME", "`id`", "a;b", "a,b", "a&b", "-x", "--help", ".hidden", "~", "@list", "=1+1", "[bold]", "null",
    "e\u0301", "\u00e9", " lead", "trail ", "trail.", "...", "a..b", "x" * 251, "漢" * 83, "a.tar", "a.zip.tar", "a.parquet",
]  # fmt: skip
# S3 itself takes keys with these for others, or refuses them in XML; SeaweedFS has no names of more than 255 bytes, and
# results are ten bytes longer.
REFUSED_BY_S3 = re.compile(r"[\x00-\x1f\x7f\ufeff\u2028]|^\.+$")


def drawn(source: random.Random, count: int) -> list[str]:
    """Names of 1 to 255 bytes, of all kinds of characters."""
    found = []
    while len(found) < count:
        kinds = source.sample([ASCII, CONTROL, WIDE, "[]*?{}#%&+;:,'\"$`\\", "ab"], source.randint(1, 3))
        name = "".join(source.choice(source.choice(kinds)) for _ in range(source.choice([1, 3, 12, 200])))
        name = name.encode()[:251].decode(errors="ignore")
        if name.strip(".") and name not in WRITTEN and name not in found:
            found.append(name)
    return found


def dated(seed: int) -> bytes:
    """A picture with a time, the same for all, so that each camera has one event."""
    image = Image.open(io.BytesIO(jpeg(seed, (64, 64))))
    facts = Image.Exif()
    facts.get_ifd(0x8769)[0x9003] = "2024:05:17 12:00:00"
    sink = io.BytesIO()
    image.save(sink, "JPEG", exif=facts)
    return sink.getvalue()


def as_tar(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def archive(names: Sequence[str]) -> dict[str, bytes]:
    """Files by path: for each name a shard of one picture and a folder of one; and a tar in which all are keys."""
    picture = dated(1)
    files = {}
    for name in names:
        files[f"shards/{name}.tar"] = as_tar({"1.jpg": picture})
        files[f"loose/{name}/{name}.jpg"] = picture
    files["keys/all.tar"] = as_tar({f"{name}/{name}.jpg": picture for name in names})
    return files


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_every_name_is_one_image_in_every_job(
    kind: str, tmp_path: Path, bucket: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = seeded(SEED)
    names = [*WRITTEN, *drawn(source, DRAWN)]
    if kind == "s3":
        names = [name for name in names if not REFUSED_BY_S3.search(name)]
        place = bucket
        for path, data in archive(names).items():
            store.put(f"{bucket}/in/{path}", data)
    else:
        place = str(tmp_path)
        for path, data in archive(names).items():
            (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / path).write_bytes(data)
    images = 3 * len(names)

    def said(*arguments: str) -> str:
        code = app.main([*arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.out[-3000:] + captured.err[-3000:]
        return " ".join(captured.out.split())

    output = f"{place}/out"
    said("classify", f"{place}/in", output, "--model", str(tiny_model), "--precision", "fp32")
    assert f"{images} images in {2 * len(names) + 1} shards; 0 shards differ" in said("verify", f"{place}/in", output)
    assert "Nothing to do" in said("classify", f"{place}/in", output, "--model", str(tiny_model), "--precision", "fp32")

    pattern = "in/{kind}/{name}/…"
    told = said("events", output, f"{place}/events", "--deployment-from", pattern)
    # A shard's name ends in .tar, and the folders have the names alone; all keys of one tar are one deployment.
    deployments = 2 * len(names) + 1
    assert f"deployments {deployments} " in told
    assert f"events {deployments} of {images} images" in told

    told = said("report", output, f"{place}/report.html", "--deployment-from", pattern, "--pictures", "0")
    assert f"images {images} of " in told
    said("rescore", output, f"{place}/rescored", "--temperature", "2")
    connection = sql.connect()
    found = dataset.find(f"{place}/rescored")
    dataset.view(connection, found)
    counted = connection.sql("SELECT count(*), count(DISTINCT image_uri), count(species) FROM images").fetchall()
    assert counted == [(images, images, images)]
    keys = [key for (key,) in connection.sql("SELECT key FROM images WHERE shard LIKE '%/keys/all.tar'").fetchall()]
    assert sorted(keys) == sorted(f"{name}/{name}.jpg" for name in names)
    assert f"{images} images share their bytes with another, in 1 group" in said("duplicates", output)

    assert f"images {images} " in said("export-megadetector", output, f"{place}/md.json")
    listed = [image["file"] for image in json.loads(store.read_text(f"{place}/md.json"))["images"]]
    assert len(listed) == len(set(listed)) == images
    tables = sql.read_parquet(entry.url for entry in store.list_files(f"{place}/events/events"))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["deploymentID", "longitude", "latitude", "deploymentStart", "deploymentEnd"])
    for (deployment,) in connection.sql(f"SELECT DISTINCT deployment FROM {tables}").fetchall():
        writer.writerow([deployment, 5, 50, "2024-05-01T00:00:00Z", "2024-06-01T00:00:00Z"])
    store.put(f"{place}/deployments.csv", table.getvalue().encode())
    description = {
        "contributors": [{"title": "Ada"}],
        "project": {
            "title": "Fens", "samplingDesign": "targeted", "captureMethod": ["activityDetection"],
            "individualAnimals": False,
        },
    }  # fmt: skip
    store.put(f"{place}/metadata.json", json.dumps(description).encode())
    told = said(
        "export-camtrapdp", output, f"{place}/events", f"{place}/deployments.csv", f"{place}/package",
        "--metadata", f"{place}/metadata.json", "--title", "Fens", "--timezone", "+00:00",
    )  # fmt: skip
    media, others = re.search(r"media (\d+) .*?(?:quarantine (\d+)|$)", told).groups()  # type: ignore[union-attr]
    assert int(media) + int(others or 0) == images
