"""`trapline export-megadetector`, as a command."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.cli import app

CLASSES = ["owl", "robin", "wren"]
SURE = Planted("a.jpg", np.log((0.75, 0.2, 0.05)), (0, 0))


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    images = [SURE, Planted("bad.jpg", status="failed", error="truncated: x")]
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", images, columns(CLASSES, 2))
    return ["export-megadetector", f"{tmp_path}/results", f"{tmp_path}/detections.json"]


def test_the_command_overwrites_on_request_only(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(arguments[-1])
    assert app.main(arguments) == 0
    assert capsys.readouterr().out.split() == ["images", "2", "boxes", "1", "failures", "1"]
    file.write_text("mine")
    assert app.main(arguments) == 2
    assert "detections.json: is there; choose another file, or overwrite it with --replace" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert app.main([*arguments, "--replace"]) == 0
    assert [image["file"] for image in json.loads(file.read_text())["images"]] == ["1.tar/a.jpg", "1.tar/bad.jpg"]


def test_results_that_are_missing_are_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["export-megadetector", str(tmp_path), f"{tmp_path}/detections.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no results" in line
    assert not (tmp_path / "detections.json").exists()


def test_a_model_without_classes_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = columns([], 2, top_k=0)
    write_result(f"{tmp_path}/results", "/in/1.tar", "1.tar", [Planted("a.jpg", (), (0, 0))], bare)
    assert app.main(["export-megadetector", f"{tmp_path}/results", f"{tmp_path}/detections.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no classes" in line
    assert not (tmp_path / "detections.json").exists()


@pytest.mark.parametrize("given", [[], ["results"], ["results", "file", "more"]])
def test_it_takes_results_and_a_file(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["export-megadetector", *given]) == 2
    assert "trapline: " in capsys.readouterr().err
