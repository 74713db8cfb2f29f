import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.analysis import dataset, megadetector_file
from trapline.analysis.megadetector_file import Account
from trapline.cli import app
from trapline.decoding.crops import Box, Cropping, Crops
from trapline.detections.megadetector import Detections
from trapline.errors import OutputConflict, UsageError
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

CLASSES = ["owl", "robin", 'a "wren"']
NIGHT = datetime(2024, 5, 17, 23)
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
                "required": ["file", "detections"],
                "properties": {
                    "file": {"type": "string", "pattern": r"^[^/\\][^\\]*$"},
                    "failure": {"type": "string"},
                    "frame_rate": {"type": "number"},
                    "frames_processed": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "detections": {
                        "type": ["array", "null"],
                        "items": {
                            "type": "object",
                            "required": ["category", "conf", "bbox"],
                            "additionalProperties": False,
                            "properties": {
                                "category": {"type": "string", "pattern": r"^\d+$"},
                                "frame_number": {"type": "integer", "minimum": 0},
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
    assert [image["failure"] for image in content["images"] if image["detections"] is None] == [
        image["failure"] for image in content["images"] if "failure" in image
    ]
    return content


@pytest.fixture
def validate() -> Callable[[str], dict[str, Any]]:
    """MegaDetector's own check of a file."""
    module = pytest.importorskip("megadetector.postprocessing.validate_batch_results", exc_type=ImportError)

    def check(path: str) -> dict[str, Any]:
        options = module.ValidateBatchResultsOptions()
        options.raise_errors = True
        found: dict[str, Any] = module.validate_batch_results(path, options)["validation_results"]
        return found

    return check


def varied(place: str) -> None:
    """Write results that have an entry of each kind: of clips, boxes, failures, and names with dots."""
    clip: dict[str, Any] = {"media_type": "video", "format": "mp4", "frame_rate": 12.5, "duration_seconds": 3.0}
    rows = [
        Planted("a.jpg", facts={"captured_at": NIGHT}, **SURE),
        Planted("b.jpg", facts={"captured_at": NIGHT}, logits=np.log((0.05, 0.9, 0.05)), embedding=(0, 0)),
        Planted("bad.jpg", status="failed", error="truncated: x"),
        Planted("clip.MTS", facts={**clip, "captured_at": NIGHT + timedelta(hours=1)}, **SURE),
        *(Planted("clip.MTS", facts={**clip, "frame_seconds": float(second)}, **SURE) for second in range(3)),
        Planted("bad.mp4", status="failed", error="no_frames: x", facts={"media_type": None}),
        Planted("really a picture.mov", **SURE),
    ]
    write_result(f"{place}/results", "/in/fen/1.tar", "fen/1.tar", rows, columns(CLASSES, 2))


def test_a_clip_has_the_boxes_of_its_frames(tmp_path: Path) -> None:
    varied(str(tmp_path))
    account = megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    assert account == Account(images=6, boxes=6, failures=2)
    entries = {image["file"].removeprefix("fen/1.tar/"): image for image in written(str(tmp_path))["images"]}
    clip = entries["clip.MTS"]
    assert (clip["frame_rate"], clip["frames_processed"]) == (12.5, [0, 12, 25])
    assert [(box["frame_number"], box["classifications"][0]) for box in clip["detections"]] == [
        (number, ["0", 0.75]) for number in (0, 12, 25)
    ]
    assert entries["bad.mp4"]["frame_rate"] == -1
    assert entries["really a picture.mov"]["frames_processed"] == [0]
    assert "frame_rate" not in entries["a.jpg"]


def test_frames_that_lie_closer_than_the_average_rate_keep_numbers_of_their_own(tmp_path: Path) -> None:
    film = {"media_type": "video", "format": "mp4", "duration_seconds": 2.0, "frame_rate": 5.0}
    facts = [film, *({**film, "frame_seconds": seconds} for seconds in (0.0, 0.05, 0.2))]
    rows = [Planted("clip.mp4", **(SURE | {"facts": each})) for each in facts]
    write_result(f"{tmp_path}/results", "/in/fen/1.tar", "fen/1.tar", rows, columns(CLASSES, 2))
    megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    (entry,) = written(str(tmp_path))["images"]
    assert entry["frames_processed"] == [box["frame_number"] for box in entry["detections"]] == [0, 1, 2]


def test_frames_at_uneven_times_have_numbers_that_their_clip_has() -> None:
    rate, duration = 12 / 9.3, 9.3
    assert megadetector_file._frame_numbers([0.0, 2.5, 2.6, 9.1, 9.2], rate, duration) == [0, 3, 4, 10, 11]
    assert megadetector_file._frame_numbers([9.0, 9.1, 9.2], rate, duration) == [9, 10, 11]
    assert megadetector_file._frame_numbers([0.0], 1, 0.0) == [0]


def test_megadetectors_own_tools_find_the_file_valid(tmp_path: Path, validate: Callable[[str], dict[str, Any]]) -> None:
    varied(str(tmp_path))
    megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    found = validate(f"{tmp_path}/detections.json")
    assert (found["errors"], found["warnings"]) == ([], [])
    assert found["detection_category_id_to_count"] == {"1": 6}


def test_the_species_are_those_of_rescored_results_and_of_events(tmp_path: Path) -> None:
    varied(str(tmp_path))
    (tmp_path / "species.csv").write_text("species\nrobin\n")
    results, rescored, events = (str(tmp_path / name) for name in ("results", "rescored", "events"))
    for source, first, pooled in ((results, ["0", 0.75], ["1", 0.55]), (rescored, ["1", 1.0], ["1", 1.0])):
        if source == rescored:
            assert app.main(["rescore", results, rescored, "--species", f"{tmp_path}/species.csv"]) == 0
        assert app.main(["events", source, events, "--deployment-from", "in/{deployment}", "--replace"]) == 0
        for options, wanted in (([], first), (["--events", events], pooled)):
            arguments = ["export-megadetector", source, f"{tmp_path}/detections.json", "--replace", *options]
            assert app.main(arguments) == 0
            image = written(str(tmp_path))["images"][0]
            assert image["detections"][0]["classifications"][0] == wanted
            assert image["detections"][0]["conf"] == wanted[1]
    (tmp_path / "results/more.tar.parquet").write_bytes((tmp_path / "results/fen/1.tar.parquet").read_bytes())
    with pytest.raises(UsageError, match="run `trapline events` again"):
        megadetector_file.write(dataset.find(results), f"{tmp_path}/detections.json", True, events)


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
        {"file": "site=a/1.tar/DCIM/bad.jpg", "failure": "truncated: x", "detections": None},
    ]  # fmt: skip
    # What `classify --detections` reads is the same format.
    counts: Counter[str] = Counter()
    back = dict(Detections.at(f"{place}/detections.json", 0.0, ("animal", "boat")).files(counts))
    assert [box.bounds for box in back["site=a/1.tar/DCIM/two.jpg"].boxes] == [(0.1, 0.2, 0.3, 0.4)]
    assert counts == {"boxes": 4, "other_category": 1, "failures": 1}


def test_the_boxes_of_a_clip_are_written_and_read_back(tmp_path: Path) -> None:
    film: dict[str, Any] = {"media_type": "video", "format": "mp4", "duration_seconds": 4.0, "frame_rate": 29.97}
    times = np.arange(120) / 29.97
    sampled = [times[number] for number in (0, 30, 60, 90)]
    box = Box("animal", 0.75, (0.25, 0.5, 0.125, 0.0625))
    rows = [Planted("clip.mp4", facts=film, **SURE)]
    for seconds in sampled:
        facts = {**film, "frame_seconds": round(float(seconds), 6)}
        if seconds == sampled[1]:
            rows += [Planted("clip.mp4", facts=facts), Planted("clip.mp4", facts=facts, crop=1, box=box, **SURE)]
        else:
            rows.append(Planted("clip.mp4", facts=facts))
    write_result(f"{tmp_path}/results", "/in/fen/1.tar", "fen/1.tar", rows, columns(CLASSES, 2, crops=True))
    account = megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
    assert account == Account(images=1, boxes=1, failures=0)
    (entry,) = written(str(tmp_path))["images"]
    assert entry["frames_processed"] == [0, 30, 60, 90]
    ((_, seen),) = Detections.at(f"{tmp_path}/detections.json", 0.2, ("animal",)).files(Counter())
    crops = Crops(seen.boxes, Cropping(0.1, square=True, whole=True), seen.processed)
    found = [crops.of_frame(float(seconds), times) for seconds in sampled]
    assert [each and each.boxes for each in found] == [None, (box,), None, None]


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
    with pytest.raises(OutputConflict, match="2 images were read of it, and its footer says 1"):
        megadetector_file.write(found, f"{tmp_path}/detections.json")
    assert not (tmp_path / "detections.json").exists()


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", [Planted("a.jpg", (), (0, 0))], columns([], 2, top_k=0))
    with pytest.raises(UsageError, match="has no classes"):
        megadetector_file.write(dataset.find(f"{tmp_path}/results"), f"{tmp_path}/detections.json")
