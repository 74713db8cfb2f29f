"""What a training leaves in OUTPUT, and which of it a later run uses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.labelled_results import archive, labels, report, rows, versions
from tests.support.result_files import MARK
from trapline.analysis import dataset
from trapline.analysis.rescoring import artifacts, head
from trapline.analysis.rescoring.artifacts import Learned
from trapline.analysis.rescoring.head import Head
from trapline.cli.rescore import main
from trapline.storage import store


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path)


def test_a_head_that_an_earlier_run_trained_is_used_again(here: str, tmp_path: Path, capsys: Any) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(4))
    command = [stored, output, "--labels", labels(tmp_path, cameras=range(4))]
    assert main(command) == 0
    place = f"{output}/_trapline/head.safetensors"
    weights = head.load(place).digest
    capsys.readouterr()
    archive(stored, [8])
    assert main(command) == 0
    assert "that an earlier run trained" in capsys.readouterr().out
    # A head that was exchanged is not used.
    learned = head.load(place)
    store.put(place, replace(learned, weight=learned.weight + 1).to_bytes())
    archive(stored, [9])
    assert main(command) == 0
    assert "that an earlier run trained" not in capsys.readouterr().out
    assert head.load(place).digest == weights


def test_a_head_is_applied_again_without_labels_and_with_its_temperature(here: str, tmp_path: Path) -> None:
    stored, output = f"{here}/results", f"{here}/again"
    archive(stored, range(6))
    path = labels(tmp_path, cameras=range(6))
    assert main([stored, output, "--labels", path, "--calibrate", path]) == 0
    saved = f"{output}/_trapline/head.safetensors"
    assert main([stored, f"{here}/third", "--head", saved]) == 0
    query = "select image_uri, species, probability from images order by all"
    assert rows(f"{here}/third", query) == rows(output, query)
    assert dataset.find(f"{here}/third").fingerprint.digest == dataset.find(output).fingerprint.digest
    assert report(f"{here}/third")["temperature"] == report(output)["temperature"] != 1
    figures = report(output)["held_out"]
    archive(stored, [7])
    assert main([stored, output, "--head", saved]) == 0
    assert len(versions(output)) == 7
    assert report(output)["held_out"] == figures


HEAD = Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("owl", "wren"), {"size": [64, 64]}, ("cam1",), 1.5)


def learned(known: Head | None = HEAD) -> Learned:
    """What a training returns."""
    report = {"learned_from": "ab", "temperature": 1.5, "remarks": ["few labels"]}
    if known:
        report["head_sha256"] = known.digest
    return Learned(known, 1.5, report, ("few labels",), {"confusion.png": b"png"})


def leave(output: str, known: Head | None = HEAD) -> None:
    for name, data in artifacts.side_files(learned(known), MARK).items():
        store.put(f"{output}/_trapline/{name}", data)


def test_the_report_is_written_last_and_has_the_fingerprint() -> None:
    files = artifacts.side_files(learned(), MARK)
    assert list(files) == ["confusion.png", "head.safetensors", "rescore.json"]
    report = json.loads(files["rescore.json"])
    assert (report["fingerprint"], report["fingerprint_sha256"]) == (dict(MARK.facts), MARK.digest)
    assert "head.safetensors" not in artifacts.side_files(learned(None), MARK)


def test_what_is_read_back_is_what_was_trained(here: str) -> None:
    leave(here)
    found = artifacts.load_earlier(here, "ab")
    assert found is not None
    assert found.head is not None
    assert (found.head.digest, found.head.cameras) == (HEAD.digest, HEAD.cameras)
    assert (found.temperature, found.remarks, found.refit) == (1.5, ("few labels",), False)
    assert artifacts.load_earlier(here, "cd") is None  # other labels or options


def test_a_temperature_alone_is_read_back_without_a_head(here: str) -> None:
    leave(here, None)
    found = artifacts.load_earlier(here, "ab")
    assert found is not None
    assert (found.head, found.temperature) == (None, 1.5)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        HEAD.to_bytes()[:-1],
        replace(HEAD, bias=HEAD.bias + 1).to_bytes(),
        replace(HEAD, classes=("owl", "robin")).to_bytes(),
        replace(HEAD, temperature=None).to_bytes(),
    ],
    ids=["missing", "empty", "cut", "other weights", "other classes", "other temperature"],
)
def test_a_head_that_is_not_the_one_of_the_report_is_not_used(data: bytes | None, here: str) -> None:
    leave(here)
    path = Path(here, "_trapline/head.safetensors")
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    assert artifacts.load_earlier(here, "ab") is None


@pytest.mark.parametrize("text", [None, "", "{cut", "[]", "1", "\xff"])
def test_a_report_that_cannot_be_read_is_empty(text: str | None, here: str) -> None:
    leave(here)
    path = Path(here, "_trapline/rescore.json")
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text.encode("latin-1"))
    assert artifacts.read_report(here) == {}
    assert artifacts.load_earlier(here, "ab") is None
