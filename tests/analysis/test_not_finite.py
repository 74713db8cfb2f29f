"""A prediction that is not finite is none, in every job: to SQL, NaN is above all numbers, and JSON has no word for it."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support import camtrapdp_package as packages
from tests.support.events import NIGHT, build, table
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset, megadetector_file, sql
from trapline.analysis.camtrapdp import descriptor, export
from trapline.analysis.camtrapdp.export import Export
from trapline.analysis.report import image_table
from trapline.analysis.rescoring import label_file, labels, rescore
from trapline.analysis.rescoring.head import Head
from trapline.analysis.rescoring.scorer import Scorer
from trapline.errors import UsageError

CLASSES = ["owl", "robin", "wren"]
URI = "s3://in/site=a/c1/1.tar"
DESCRIPTION = {
    "contributors": [{"title": "Ada"}],
    "licenses": [{"name": "CC0-1.0", "scope": "data"}, {"name": "CC-BY-4.0", "scope": "media"}],
    "project": {"title": "x", "samplingDesign": "opportunistic", "captureMethod": ["timeLapse"], "individualAnimals": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("not_finite"))
    said = {"a": ((0.5, 0.25, 0.25), (1, 0)), "b": ((math.nan, 0.5, 0.5), (math.nan, 1)), "c": ((0.25, 0.5, 0.25), (math.inf, 0))}  # fmt: skip
    images = [
        Planted(f"{key}.jpg", np.log(shares), vector, facts={"captured_at": NIGHT, "format": "jpeg", "content_sha256": key.encode() * 32})
        for key, (shares, vector) in said.items()
    ]  # fmt: skip
    with np.errstate(invalid="ignore"):
        write_result(f"{folder}/results", URI, "site=a/c1/1.tar", images, columns(CLASSES, 2))
    build(folder)
    return folder


def test_an_event_has_the_mean_of_the_others(place: str) -> None:
    ((frames, ok, probabilities),) = table(place, select="frames, ok, probabilities")
    assert (frames, ok) == (3, 3)
    assert probabilities == pytest.approx([0.375, 0.375, 0.25])


def test_labels_of_such_an_embedding_are_unusable(place: str, tmp_path: Path) -> None:
    found = dataset.find(f"{place}/results")
    (tmp_path / "l.csv").write_text("file,species\na.jpg,x\nb.jpg,y\nc.jpg,y\n")
    joined = labels.join(label_file.read(f"{tmp_path}/l.csv"), found, "embedding")
    assert (joined.uris.tolist(), joined.unusable) == ([f"{URI}#a.jpg"], 2)
    joined = labels.join(label_file.read(f"{tmp_path}/l.csv"), found, "probabilities")
    assert (joined.uris.tolist(), joined.unusable) == ([f"{URI}#a.jpg", f"{URI}#c.jpg"], 1)
    (tmp_path / "l.csv").write_text("file,species\nb.jpg,y\n")
    with pytest.raises(UsageError, match="all 1 images that it labels"):
        labels.join(label_file.read(f"{tmp_path}/l.csv"), found, "embedding")


@pytest.mark.parametrize(
    ("scorer", "named"),
    [(Scorer(tuple(CLASSES), 2, temperature=2.0), "ac"), (Scorer(("x", "y"), 2, Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("x", "y"), {})), "a")],
)  # fmt: skip
def test_a_new_row_has_no_prediction(scorer: Scorer, named: str, place: str, tmp_path: Path) -> None:
    found = dataset.find(f"{place}/results")
    mark = rescore.fingerprint(found, scorer, None, None)
    todo = rescore.plan(found, str(tmp_path), mark, overwrite=False).todo
    assert [outcome.trouble for outcome in rescore.run(todo, scorer, mark)] == [None]
    rows = pq.read_table(f"{tmp_path}/site=a/c1/1.tar.parquet", partitioning=None).to_pylist()
    assert [row["key"][0] for row in rows if row["species"] is not None] == list(named)


def test_megadetectors_file_is_json_without_it(place: str, tmp_path: Path) -> None:
    megadetector_file.write(dataset.find(f"{place}/results"), f"{tmp_path}/m.json")
    text = (tmp_path / "m.json").read_text()
    images = json.loads(text, parse_constant=lambda word: pytest.fail(word))["images"]
    assert [len(image["detections"]) for image in images] == [1, 0, 1]


def test_an_observation_of_it_is_unclassified(place: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(
        "deploymentID,latitude,longitude,deploymentStart,deploymentEnd\na/c1,1,2,2024-05-01,2024-06-01\n"
    )
    found = dataset.find(f"{place}/results")
    description = descriptor.parse(DESCRIPTION, "m.yaml")
    how = Export(timezone="UTC", threshold=0)
    export.export(found, f"{place}/events", f"{tmp_path}/d.csv", f"{tmp_path}/p", description, "x", how)
    rows = [row for row in packages.rows(f"{tmp_path}/p", "observations") if row["observationLevel"] == "media"]
    kinds = sorted((row["observationType"], row["scientificName"], row["classificationProbability"]) for row in rows)
    assert kinds == [("animal", "owl", "0.5"), ("animal", "robin", "0.5"), ("unclassified", "", "")]


def test_a_report_does_not_name_it(place: str) -> None:
    connection = sql.connect()
    image_table.read(connection, dataset.find(f"{place}/results"), (), 0.5)
    assert connection.sql("select key from images where named order by key").fetchall() == [("a.jpg",), ("c.jpg",)]
