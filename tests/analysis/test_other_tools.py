"""The blocks of docs/other_tools.md are run as they stand there, on an archive whose answers are known."""

import csv
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.support import r_session
from tests.support.checkout import ROOT
from tests.support.result_files import MARK, Planted, columns, write_result
from trapline.cli import app
from trapline.results.fingerprint import Fingerprint

PAGE = (ROOT / "docs" / "other_tools.md").read_text()
CLASSES = ["lantern owl", "robin", "nothing"]
NIGHT = datetime(2024, 5, 17, 23, 59, 30)
CLIP = {"media_type": "video", "format": "mp4", "duration_seconds": 2.0, "frame_rate": 25.0}


def blocks(heading: str) -> dict[str, str]:
    """The code under a heading, by what follows its fence."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^```([^\n]+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def at(seconds: float, species: str, key: str, share: float = 0.8, **facts: Any) -> Planted:
    shares = [share if name == species else (1 - share) / 2 for name in CLASSES]
    facts = {"captured_at": NIGHT + timedelta(seconds=seconds), "format": "jpeg"} | facts
    return Planted(key, np.log(shares), (share, seconds), facts=facts)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and events of two cameras in the current folder: a burst, a clip, a blank, a doubtful and a failed one."""
    monkeypatch.chdir(tmp_path)
    clip = [
        at(600, "robin", "clip.mp4", **CLIP, **more) for more in ({}, {"frame_seconds": 0.0}, {"frame_seconds": 1.0})
    ]
    rows = {
        "007": [at(0, "lantern owl", "DCIM/1.jpg"), at(20, "lantern owl", "DCIM/2.jpg"), *clip],
        "7": [at(0, "nothing", "DCIM/1.jpg"), at(7200, "lantern owl", "DCIM/2.jpg"), at(10800, "lantern owl", "3, b#c.jpg"),
              at(7800, "nothing", "DCIM/6.jpg"), at(8400, "lantern owl", "DCIM/7.jpg", 0.7),
              at(90000, "robin", "x.jpg", 0.4), Planted("bad.jpg", status="failed", error="empty: x")],
    }  # fmt: skip
    for camera, images in rows.items():
        write_result("results", f"/in/{camera}/1.tar", f"{camera}/1.tar", images, columns(CLASSES, 2))
    assert app.main(["events", "results", "events", "--deployment-from", "in/{deployment}/*"]) == 0
    return tmp_path


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_wildlife_insights_gets_each_picture_and_clip_once_with_its_own_taxonomy(here: Path) -> None:
    header = "name,wi_taxon_id,class,order,family,genus,epithet,common_name\n"
    taxa = [
        "lantern owl,a1,Aves,Strigiformes,Strigidae,Lampas,nocturna,Lantern Owl",
        "robin,a2,Aves,,,Erithacus,rubecula,Robin",
    ]
    (here / "taxa.csv").write_text(header + "\n".join([*taxa, "nothing,a3,,,,,blank,Blank"]) + "\n")
    duckdb.execute(blocks("Wildlife Insights")["sql"])
    rows = read("images.csv")
    # The columns of the platform's template for a batch upload.
    template = """project_id deployment_id image_id filename location is_blank identified_by wi_taxon_id class order family
        genus species common_name uncertainty timestamp number_of_objects highlighted age sex animal_recognizable
        individual_id individual_animal_notes markings"""
    assert list(rows[0]) == template.split()
    assert [(row["deployment_id"], row["filename"], row["timestamp"], row["genus"], row["species"], row["is_blank"],
             row["number_of_objects"]) for row in rows] == [
        ("007", "1.jpg", "2024-05-17 23:59:30", "Lampas", "nocturna", "0", "1"),
        ("007", "2.jpg", "2024-05-17 23:59:50", "Lampas", "nocturna", "0", "1"),
        ("007", "clip.mp4", "2024-05-18 00:09:30", "Erithacus", "rubecula", "0", "1"),
        ("7", "1.jpg", "2024-05-17 23:59:30", "", "", "1", "0"),
        ("7", "2.jpg", "2024-05-18 01:59:30", "Lampas", "nocturna", "0", "1"),
        ("7", "6.jpg", "2024-05-18 02:09:30", "", "", "1", "0"),
        ("7", "7.jpg", "2024-05-18 02:19:30", "Lampas", "nocturna", "0", "1"),
        ("7", "3, b#c.jpg", "2024-05-18 02:59:30", "Lampas", "nocturna", "0", "1"),
    ]  # fmt: skip
    assert len({row["image_id"] for row in rows}) == len(rows)


def test_a_picture_with_boxes_is_counted_by_wildlife_insights_and_is_one_task_of_label_studio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    boxes = [at(0, "robin", "a.jpg", share, media_type="image") for share in (0.8, 0.7, 0.6)]
    boxes[2] = at(0, "lantern owl", "a.jpg", 0.6, media_type="image")
    rows = [
        Planted("a.jpg", facts=boxes[0].facts),
        *(replace(box, crop=number) for number, box in enumerate(boxes, start=1)),
        Planted("none.jpg", facts=boxes[0].facts),
    ]
    mark = Fingerprint({**MARK.facts, "detections_sha256": "ab"})
    write_result("results", "/in/c1/1.tar", "c1/1.tar", rows, columns(CLASSES, 2, crops=True), mark)
    assert app.main(["events", "results", "events", "--deployment-from", "in/{deployment}/*"]) == 0
    header = "name,wi_taxon_id,class,order,family,genus,epithet,common_name\n"
    Path("taxa.csv").write_text(
        f"{header}lantern owl,a1,Aves,,,Lampas,nocturna,\nrobin,a2,Aves,,,Erithacus,rubecula,\n"
    )
    duckdb.execute(blocks("Wildlife Insights")["sql"])
    found = [(row["genus"], row["number_of_objects"], row["uncertainty"]) for row in read("images.csv")]
    assert found == [("Lampas", "1", "0.4"), ("Erithacus", "2", "0.2")]
    exec(blocks("Label Studio")["python tasks"], {})
    (task,) = json.loads(Path("tasks.json").read_text())
    assert task["predictions"][0]["score"] == pytest.approx(0.6)


@pytest.mark.usefixtures("here")
def test_camtrapr_gets_a_row_per_independent_event_with_the_time_since_the_last_of_its_species() -> None:
    duckdb.execute(blocks("camtrapR")["sql"])
    rows = read("records.csv")
    camtrapr = "Station Species DateTimeOriginal Date Time delta.time.secs delta.time.mins delta.time.hours"
    assert list(rows[0]) == [*camtrapr.split(), "delta.time.days", "Directory", "FileName", "n_images"]
    assert [(*[*row.values()][:6], row["delta.time.hours"], row["FileName"], row["n_images"]) for row in rows] == [
        ("007", "lantern owl", "2024-05-17 23:59:30", "2024-05-17", "23:59:30", "0", "0.0", "1.jpg", "2"),
        ("007", "robin", "2024-05-18 00:09:30", "2024-05-18", "00:09:30", "0", "0.0", "1.tar#clip.mp4", "1"),
        # The third within half an hour of the second, which the blank between them does not end; the fourth is not.
        ("7", "lantern owl", "2024-05-18 01:59:30", "2024-05-18", "01:59:30", "0", "0.0", "2.jpg", "2"),
        ("7", "lantern owl", "2024-05-18 02:59:30", "2024-05-18", "02:59:30", "2400", "0.7", "1.tar#3, b#c.jpg", "1"),
        ("7", "nothing", "2024-05-17 23:59:30", "2024-05-17", "23:59:30", "0", "0.0", "1.jpg", "1"),
        ("7", "nothing", "2024-05-18 02:09:30", "2024-05-18", "02:09:30", "7800", "2.2", "6.jpg", "1"),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_r_keeps_stations_and_species_as_they_are_written() -> None:
    r_session.require("jsonlite")
    recipe = blocks("camtrapR")
    duckdb.execute(recipe["sql"])
    text = Path("records.csv").read_text()
    Path("records.csv").write_text(text.replace("robin", "NA").replace("nothing", "TRUE"))
    shown = 'cat(jsonlite::toJSON(records[c("Station", "Species", "delta.time.hours")], dataframe = "columns"))'
    found = r_session.answer(f"{recipe['r records']}\n{shown}")
    assert found == {
        "Station": ["007", "007", "7", "7", "7", "7"],
        "Species": ["lantern owl", "NA", "lantern owl", "lantern owl", "TRUE", "TRUE"],
        "delta.time.hours": [0, 0, 0, 0.7, 0, 2.2],
    }


def test_doubtful_pictures_go_to_label_studio_and_come_back_as_labels(here: Path) -> None:
    recipe = blocks("Label Studio")
    exec(recipe["python tasks"], {})
    tasks = json.loads((here / "tasks.json").read_text())
    assert [task["data"]["image_uri"] for task in tasks[:1]] == ["/in/7/1.tar#x.jpg"]
    assert tasks[0]["data"]["image"] == "https://pictures.example.org/in/7/1.tar/x.jpg"
    assert "https://pictures.example.org/in/7/1.tar/3%2C%20b%23c.jpg" in {task["data"]["image"] for task in tasks}
    # Not the clip.
    assert len({task["data"]["image"] for task in tasks}) == len(tasks) == 8
    names = set(re.findall(r'name="(\w+)"', recipe["xml"])), set(re.findall(r'value="\$(\w+)"', recipe["xml"]))
    assert names == ({"image", "species"}, {"image"})
    for task in tasks:
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("species", "image", "choices")
        assert 0 < prediction["score"] <= 1
    # What JSON-MIN has of a task: its data, and the choice under the name of its control.
    export = [
        {**task["data"], "id": number, "species": ("owl", "robin")[number % 2]} for number, task in enumerate(tasks)
    ]
    skipped = {**tasks[0]["data"], "id": 98}
    several = {**tasks[0]["data"], "id": 99, "species": {"choices": ["owl", "robin"]}}
    (here / "export.json").write_text(json.dumps([*export, skipped, several]))
    exec(recipe["python labels"], {})
    assert len(read("labels.csv")) == len(tasks)
    assert app.main([*recipe["text"].split()[1:], "--no-holdout"]) == 0
    found = duckdb.sql("select distinct species from 'rescored/**/*.parquet' where species is not null").fetchall()
    assert {name for (name,) in found} <= {"owl", "robin"}


@pytest.mark.usefixtures("here")
def test_lance_holds_each_picture_and_clip_with_its_embedding() -> None:
    pytest.importorskip("lance")
    names: dict[str, Any] = {}
    exec(blocks("Lance")["python lance"], names)
    rows = names["table"].to_table().to_pylist()
    assert len(rows) == 9
    nearest = names["table"].to_table(nearest={"column": "embedding", "q": [0.8, 600.0], "k": 1}).to_pylist()
    assert nearest[0]["image_uri"] == "/in/007/1.tar#clip.mp4"


def test_the_blocks_that_no_test_runs_are_python_at_least() -> None:
    compile(blocks("FiftyOne")["python fiftyone"], "docs/other_tools.md", "exec")
