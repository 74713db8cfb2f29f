"""Results of a few images, made into events, for tests of the tables and of the jobs that read them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.result_files import Planted, as_a_user, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.events import build as module
from trapline.analysis.events.build import Account, Options
from trapline.analysis.events.sessions import Gap

CLASSES = ["owl", "robin", "wren"]
COLUMNS = columns(CLASSES, 2)
NIGHT = datetime(2024, 5, 17, 23, 59, 30)
PATTERN = ("site={site}/{camera}/…",)


def at(seconds: float | None, probabilities: Sequence[float] = (0.5, 0.25, 0.25), **values: Any) -> Planted:
    """An image so long after the night began."""
    facts = {} if seconds is None else {"captured_at": NIGHT + timedelta(seconds=seconds)}
    facts |= values.pop("facts", {})
    key = values.pop("key", f"DCIM/{seconds}.jpg")
    if values.get("status") != "failed":
        values |= {"logits": np.log(np.maximum(probabilities, 1e-30)), "embedding": (0, 0)}
    return Planted(key, facts=facts, **values)


def write(output: str, name: str, images: list[Planted], **values: Any) -> None:
    write_result(output, f"s3://in/{name}", name, images, **{"of": COLUMNS} | values)


def build(
    place: str, gap: Gap = Gap(), sources: Sequence[str] = PATTERN, replace: bool = False, corrections: str | None = None,  # noqa: B008
) -> Account:  # fmt: skip
    options = Options(gap, sources, corrections)
    return module.build(dataset.find(f"{place}/results"), f"{place}/events", options, replace)


def table(place: str, name: str = "events", select: str = "*") -> list[tuple[Any, ...]]:
    connection = as_a_user(place)
    order = "started_at, camera" if name == "events" else "all"
    return connection.sql(f"select {select} from '{place}/events/{name}/*.parquet' order by {order}").fetchall()


def folder(kind: str, tmp_path: Path, bucket: str) -> str:
    return bucket if kind == "s3" else str(tmp_path)


def seconds(moment: datetime) -> float:
    return (moment - NIGHT).total_seconds()
