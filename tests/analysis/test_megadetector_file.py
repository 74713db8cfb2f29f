import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, megadetector_file
from trapline.analysis.megadetector_file import Account
from trapline.decoding.crops import Box
from trapline.detections.megadetector import Detections
from trapline.errors import OutputConflict, TransientError, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

CLASSES = ["owl", "robin", 'a "wren"']
SURE = {"logits": np.log((0.75, 0.2, 0.05)), "embedding": (0, 0)}

# The documented format, https://lila.science/megadetector-output-format
FORMAT = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["images", "detection_categories", "info"],
    "properties": {
        "info": {
            "type": "object",
            "required": ["format_version"],
            "properties": {"format_version": {"type": "string", "pattern": r"^1\.\d+$"}, "detector": {"type": "string"},
                           "classifier": {"type": "string"}},
        },
        "detection_categories": {"type": "object", "patternProperties": {r"^\d+$": {"type": "string"}}, "additionalProperties": False},
        "classification_categories": {"type": "object", "patternProperties": {r"^\d+$": {"type": "string"}}, "additionalProperties": False},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["file"],
                "oneOf": [{"required": ["detections"]}, {"required": ["failure"]}],
                "properties": {
                    "file": {"type": "string", "pattern": r"^[^/\\][^\\]*$"},
                    "failure": {"type": "string"},
                    "detections": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["category", "conf", "bbox"],
                            "additionalProperties": False,
                            "properties": {
                                "category": {"type": "string", "pattern": r"^\d+$"},
                                "conf": {"type": "number", "minimum": 0, "maximum": 1},
                                "bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "number", "minimum": 0, "maximum": 1}},
                                "classifications": {
                                    "type": "array",
                                    "items": {
                                        "type": "array", "minItems": 2, "maxItems": 2,
                                        "items": [{"type": "string", "pattern": r"^\d+$"}, {"type": "number", "minimum": 0, "maximum": 1}],
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def written(place: str) -> dict[str, Any]:
    (data,) = store.read_many([f"{place}/detections.json"])
    content: dict[str, Any] = json.loads(data)
    jsonschema.validate(content, FORMAT)
    return content


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_boxes_and_their_classes_are_written_and_read_back(kind: str, tmp_path: Path, bucket: str) -> None:
    place = bucket if kind == "s3" else str(tmp_path)
    rows = [
        Planted("DCIM/two.jpg"),
        Planted("DCIM/two.jpg", crop=1, box=Box("animal", 0.9, (0.1, 0.2, 0.3, 0.4)), **SURE),
        Planted("DCIM/two.jpg", crop=2, box=Box("person", 0.8, (0.0, 0.0, 0.5, 1.0)), **SURE),
        Planted("DCIM/boat.jpg"),
        Planted("DCIM/boat.jpg", crop=1, box=Box("boat", 0.3, (0.0, 0.0, 1.0, 1.0)), **SURE),
        Planted("DCIM/whole.jpg", **SURE),
        Planted("DCIM/empty.jpg"),
        Planted("DCIM/bad.jpg", status="failed", error="truncated: x"),
        Planted("", status="failed", error="broken: cut"),
    ]
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
    write_result(
        f"{place}/results", "s3://in/site=a/1.tar", "site=a/1.tar", rows, columns(CLASSES, 2, crops=True), mark
    )
    account = megadetector_file.write(dataset.find(f"{place}/results"), f"{place}/detections.json")
    assert account == Account(images=5, boxes=4, failures=1)
    content = written(place)
    assert content["classification_categories"] == {"0": "owl", "1": "robin", "2": 'a "wren"'}
    assert content["detection_categories"] == {"1": "animal", "2": "person", "3": "vehicle", "4": "boat"}
    assert content["info"]["detector"] == "detections sha256:ab"
    top = [["0", 0.75], ["1", 0.2]]
    assert content["images"] == [
        {"file": "site=a/1.tar/DCIM/two.jpg", "detections": [
            {"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4], "classifications": top},
            {"category": "2", "conf": 0.8, "bbox": [0.0, 0.0, 0.5, 1.0]},
        ]},
        {"file": "site=a/1.tar/DCIM/boat.jpg", "detections": [
            {"category": "4", "conf": 0.3, "bbox": [0.0, 0.0, 1.0, 1.0], "classifications": top},
        ]},
        {"file": "site=a/1.tar/DCIM/whole.jpg", "detections": [
            {"category": "1", "conf": 0.75, "bbox": [0.0, 0.0, 1.0, 1.0], "classifications": top},
        ]},
        {"file": "site=a/1.tar/DCIM/empty.jpg", "detections": []},
        {"file": "site=a/1.tar/DCIM/bad.jpg", "failure": "truncated: x"},
    ]  # fmt: skip
    # What `classify --detections` reads is the same format.
    counts: Counter[str] = Counter()
    back = dict(Detections.at(f"{place}/detections.json", 0.0, ("animal", "boat")).files(counts))
    assert [box.bounds for box in back["site=a/1.tar/DCIM/two.jpg"]] == [(0.1, 0.2, 0.3, 0.4)]
    assert counts == {"boxes": 4, "other_category": 1, "failures": 1}


def test_a_folder_of_loose_photographs_has_their_paths_below_the_input(tmp_path: Path) -> None:
    facts = {"captured_at": datetime(2024, 5, 1)}
    for name, key in (("2024/cam 1/images", "IMG#1.JPG"), ("images", "top.jpg")):
        write_result(
            f"{tmp_path}/results",
            f"/in/{name}",
            name,
            [Planted(key, facts=facts, **SURE)],
            columns(CLASSES, 2),
            loose=True,
        )
    megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    content = written(str(tmp_path))
    assert [image["file"] for image in content["images"]] == ["2024/cam 1/IMG#1.JPG", "top.jpg"]
    assert content["info"]["detector"] == "none: one box around each image"


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", [Planted("a.jpg", **SURE)], columns(CLASSES, 2))
    (tmp_path / "detections.json").write_text("mine")
    with pytest.raises(OutputConflict):
        megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    assert (tmp_path / "detections.json").read_text() == "mine"


def test_results_that_change_meanwhile_are_not_written(tmp_path: Path) -> None:
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", [Planted("a.jpg", **SURE)], columns(CLASSES, 2))
    found = dataset.find(f"{tmp_path}/results")
    images = [Planted("a.jpg", **SURE), Planted("b.jpg", **SURE)]
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", images, columns(CLASSES, 2))
    with pytest.raises(TransientError, match="has 1 images, and 2 were read; run it again"):
        megadetector_file.write(found, f"{tmp_path}/detections.json")
    assert not (tmp_path / "detections.json").exists()


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", [Planted("a.jpg", (), (0, 0))], columns([], 2, top_k=0))
    with pytest.raises(UsageError, match="has no classes"):
        megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
