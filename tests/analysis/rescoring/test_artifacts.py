"""What a training leaves in OUTPUT, and which of it a later run uses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.labelled_results import archive, labels, report, rows, versions
from trapline.analysis import dataset
from trapline.analysis.rescoring import head
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
