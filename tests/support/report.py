"""Results whose answers are known, for tests of the report."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tests.support.archives import jpeg, write_tar
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, deployments, event_dataset, sql
from trapline.analysis.events import build
from trapline.analysis.events.sessions import Gap
from trapline.analysis.report import image_table, queries, sightings, survey_effort
from trapline.analysis.report.queries import Headline
from trapline.analysis.report.sightings import Survey
from trapline.results.schema import Columns

CLASSES = ["owl", "robin", "wren"]
COLUMNS = columns(CLASSES, 4)
START = datetime(2024, 5, 1, 12)
SURE, UNSURE = (4.0, 0.0, 0.0), (0.1, 0.0, 0.0)
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


def seen(
    key: str, day: float = 0, logits: Sequence[float] = SURE, embedding: Sequence[float] = (1, 0, 0, 0), **facts: Any
) -> Planted:
    """An image so many days after the start."""
    known = {"captured_at": START + timedelta(days=day), "content_sha256": b"x" * 32}
    return Planted(key, logits, embedding, facts=known | facts)


def failed(key: str, day: float = 0, reason: str = "empty") -> Planted:
    return Planted(
        key, status="failed", error=f"{reason}: no bytes", facts={"captured_at": START + timedelta(days=day)}
    )


def plant(
    output: str, camera: str, images: Sequence[Planted], of: Columns = COLUMNS, archive: str = "/nowhere"
) -> None:
    name = f"site={camera}/1.tar"
    write_result(output, f"{archive}/{name}", name, images, of)


def ask(output: str, *sources: str, sure: float = 0.5) -> tuple[duckdb.DuckDBPyConnection, Headline]:
    found = dataset.find(output)
    connection = sql.connect()
    image_table.read(connection, found, [deployments.parse(source) for source in sources], sure)
    return connection, queries.headline(connection, found)


def make_events(
    output: str, events: str, source: str = "site={site}/{camera}/…", gap: float = 60, **values: Any
) -> None:
    build.build(dataset.find(output), events, build.Options(Gap(gap), (source,), **values))


def survey(output: str, events: str, minutes: float = 30) -> tuple[duckdb.DuckDBPyConnection, Survey]:
    """The tables of the events of these results, and their figures."""
    files = event_dataset.find(events, dataset.find(output))
    connection, _ = ask(output, *files.deployment_from)
    sources = [deployments.parse(source) for source in files.deployment_from]
    survey_effort.read(connection, files, sources)
    return connection, sightings.from_events(connection, 0.5, minutes)


def manifest(**values: Any) -> dict[str, Any]:
    """What a report reads of the manifest of a run."""
    whole = {
        "started_at": "2026-11-24T12:44:53+00:00", "status": "complete", "shards_committed": 9, "seconds": 3601.2,
        "images": {"ok": 10, "salvaged": 0, "failed": 2}, "images_per_second": 37.6, "bound_by": "decode",
        "busy": {"decode": 0.11, "predict": 0.09},
    }  # fmt: skip
    return whole | values


def hostile_archive(archive: Path, output: str) -> None:
    """Every name that a page shows would be its own markup, or wider than a telephone."""
    long = "Aves-" + "x" * 200
    names = columns([HOSTILE, long, "wren"], 4)
    for camera, place in enumerate((HOSTILE.replace("/", "∕"), long[:120])):
        members = {f"{HOSTILE.replace('/', '∕')}{n}.jpg": jpeg(n + 50 * camera) for n in range(12)}
        shard = write_tar(archive / f"site={place}" / place / "1.tar", members)
        images = [
            seen(name, n, np.roll(SURE, n % 3), content_sha256=sha256(data).digest())
            for n, (name, data) in enumerate(members.items())
        ]
        bad = Planted(f"{HOSTILE}.jpg", status="failed", error=f"{HOSTILE}: {HOSTILE}")
        gone = [seen("gone.jpg", 13, UNSURE)] if camera else []
        name = f"site={place}/{place}/1.tar"
        write_result(output, str(shard), name, [*images, bad, *gone], names)
    folder = Path(output) / "_trapline" / "runs"
    folder.mkdir(parents=True)
    for name in "12":
        (folder / f"{name}.json").write_text(json.dumps(manifest(status=HOSTILE, bound_by=HOSTILE)))
