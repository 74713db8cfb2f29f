"""Results of ten cameras with planted structure, and labels for them."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, sql
from trapline.analysis.rescoring.calibration import softmax
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

CLASSES = ("tawny owl", "ural owl", "robin")
TEMPERATURE = 2.5
CAMERAS = 10
PER_CAMERA = 30
KINDS = ("deer", "fox", "hare")


def kind_of(number: int) -> str:
    """What a picture really shows, which the stored classes have no name for."""
    return KINDS[number % 3]


def images(camera: int) -> list[Planted]:
    """A camera's pictures: their kind is in the first three numbers of the embedding, the camera in the other three.

    The stored logits are over-sure by TEMPERATURE: the bird in `metadata` is drawn from what they should say.
    """
    rng = np.random.default_rng(camera)
    away = rng.normal(0, 3, 3)
    made = []
    for number in range(PER_CAMERA):
        embedding = np.concatenate([np.eye(3)[number % 3] * 2 + rng.normal(0, 0.2, 3), away])
        honest = rng.normal(0, 1.5, 3)
        bird = CLASSES[rng.choice(3, p=softmax(honest[None])[0] / softmax(honest[None])[0].sum())]
        content = hashlib.sha256(f"{camera}/{number}".encode()).digest()
        made.append(
            Planted(f"{number}.jpg", tuple(honest * TEMPERATURE), embedding, bird, facts={"content_sha256": content})
        )
    return [*made, Planted("broken.jpg", status="failed", error="empty: x")]


def archive(output: str, cameras: Sequence[int] = range(CAMERAS), mark: Fingerprint = MARK, **of: Any) -> None:
    for camera in cameras:
        shard = f"/in/site={camera % 2}/cam{camera}/a.tar"
        write_result(
            output, shard, f"site={camera % 2}/cam{camera}/a.tar", images(camera), columns(CLASSES, 6, **of), mark
        )


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def labels(folder: Path, what: str = "kind", cameras: Sequence[int] = range(CAMERAS)) -> str:
    """Labels for all pictures: what they really show (`kind`), or the birds of the stored classes (`bird`)."""
    rows = [
        (f"/in/site={camera % 2}/cam{camera}/a.tar#{image.key}", kind_of(number) if what == "kind" else image.metadata)
        for camera in cameras
        for number, image in enumerate(images(camera)[:-1])
    ]
    return table(folder / f"{what}.csv", ["image_uri", "species"], rows)  # type: ignore[arg-type]


def report(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.read_text(f"{output}/_trapline/rescore.json"))
    return found


def rows(output: str, query: str) -> list[Any]:
    connection = sql.connect()
    dataset.view(connection, dataset.find(output))
    return connection.sql(query).fetchall()


def versions(output: str) -> dict[str, str]:
    return {entry.url: entry.identity for entry in store.list_files(output) if entry.url.endswith(".parquet")}
