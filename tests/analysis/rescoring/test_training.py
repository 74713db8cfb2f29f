"""What is trained on labels, and on which cameras it is evaluated."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.labelled_results import (
    CAMERAS,
    CLASSES,
    KINDS,
    PER_CAMERA,
    TEMPERATURE,
    archive,
    images,
    labels,
    report,
    rows,
    table,
)
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis.rescoring import head
from trapline.cli.rescore import main
from trapline.storage import store


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path)


def test_frames_of_one_camera_are_never_on_both_sides(here: str, tmp_path: Path) -> None:
    """Kinds are noise here and cameras are not: a split by frame is right at what was held out, too."""
    output = f"{here}/again"
    archive(f"{here}/results")
    rng = np.random.default_rng(0)
    rows_ = [
        (
            f"/in/site={camera % 2}/cam{camera}/a.tar#{number}.jpg",
            KINDS[camera % 3] if camera < 6 else str(rng.choice(KINDS)),
        )
        for camera in range(CAMERAS)
        for number in range(PER_CAMERA)
    ]
    assert (
        main([f"{here}/results", output, "--labels", table(tmp_path / "l.csv", ["image_uri", "species"], rows_)]) == 0
    )
    assert report(output)["held_out"]["accuracy"] < 0.6


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_planted_temperature_is_recovered_from_stored_probabilities(kind: str, tmp_path: Path, bucket: str) -> None:
    base = bucket if kind == "s3" else str(tmp_path)
    stored, output = f"{base}/results", f"{base}/again"
    archive(stored, embedding="none")
    assert main([stored, output, "--calibrate", labels(tmp_path, "bird")]) == 0
    found = report(output)["calibration"]
    assert found["temperature"] == pytest.approx(TEMPERATURE, rel=0.25)  # of 240 labels
    assert found["after"]["ece"] < found["before"]["ece"]
    assert found["before"]["images"] == PER_CAMERA * len(report(output)["held_out_cameras"]) == 2 * PER_CAMERA
    assert store.read_many([f"{output}/_trapline/reliability.png"])[0].startswith(b"\x89PNG")
    ((least, most),) = rows(
        output, "select min(list_sum(probabilities::float[])), max(list_sum(probabilities::float[])) from images"
    )
    assert (least, most) == pytest.approx((1, 1), abs=1e-5)


def test_a_model_without_classifier_gets_one_from_half_precision_too(here: str, tmp_path: Path) -> None:
    bare = columns((), 6, embedding="float16", probabilities=False)
    for camera in range(4):
        shard = f"/in/site={camera % 2}/cam{camera}/a.tar"
        made = [replace(image, logits=()) for image in images(camera)]
        write_result(f"{here}/results", shard, f"site={camera % 2}/cam{camera}/a.tar", made, bare)
    assert main([f"{here}/results", f"{here}/again", "--labels", labels(tmp_path, cameras=range(4))]) == 0
    assert report(f"{here}/again")["held_out"]["accuracy"] == 1
    assert rows(f"{here}/again", "select count(species) from images") == [(4 * PER_CAMERA,)]


def test_a_given_head_is_not_calibrated_on_cameras_that_it_was_trained_on(
    here: str, tmp_path: Path, capsys: Any
) -> None:
    stored = f"{here}/results"
    archive(stored)
    assert main([stored, f"{here}/again", "--labels", labels(tmp_path, cameras=range(6))]) == 0
    saved = f"{here}/again/_trapline/head.safetensors"
    seen = len(head.load(saved).cameras)
    capsys.readouterr()
    command = [stored, f"{here}/third", "--head", saved, "--calibrate", labels(tmp_path)]
    assert main(command) == 0
    assert (
        f"{seen * PER_CAMERA} labels are of cameras that the head was trained on; not used" in capsys.readouterr().out
    )
    found = report(f"{here}/third")
    judged = found["calibration"]["before"]["images"]
    assert found["calibration"]["images"] + judged == (CAMERAS - seen) * PER_CAMERA


def test_a_head_is_calibrated_on_cameras_that_it_has_not_seen(here: str, tmp_path: Path) -> None:
    """With 40 numbers of noise and few labels a head is sure of all that it learned from, and wrong elsewhere."""
    rng = np.random.default_rng(3)
    rows_ = []
    for camera in range(8):
        made = [Planted(f"{n}.jpg", (0, 0, 0), rng.normal(0, 1, 40) + 0.35 * np.eye(40)[n % 3]) for n in range(12)]
        write_result(f"{here}/results", f"/in/cam{camera}/a.tar", f"cam{camera}/a.tar", made, columns(CLASSES, 40))
        rows_ += [(f"/in/cam{camera}/a.tar#{n}.jpg", KINDS[n % 3]) for n in range(12)]
    path = table(tmp_path / "l.csv", ["image_uri", "species"], rows_)
    assert main([f"{here}/results", f"{here}/again", "--labels", path, "--calibrate", path]) == 0
    found = report(f"{here}/again")
    assert found["head"]["cameras"] + len(found["held_out_cameras"]) == 8
    assert found["calibration"]["images"] == 12 * found["head"]["cameras"]
    # On what it learned from it would be below 1: right ever so often.
    assert found["temperature"] > 0.9


def test_without_a_holdout_all_labels_are_trained_on(here: str, tmp_path: Path, capsys: Any) -> None:
    archive(f"{here}/results", range(3))
    one = labels(tmp_path, cameras=[0])
    assert main([f"{here}/results", f"{here}/again", "--labels", one]) == 2
    assert (
        "all labelled images are of one camera, /site=0/cam0, so that none can be held out" in capsys.readouterr().err
    )
    assert main([f"{here}/results", f"{here}/again", "--labels", one, "--no-holdout"]) == 0
    assert report(f"{here}/again")["head"]["images"] == PER_CAMERA
    assert "held_out" not in report(f"{here}/again")


def test_where_each_camera_alone_has_some_species_none_can_be_held_out(here: str, tmp_path: Path, capsys: Any) -> None:
    archive(f"{here}/results", range(3))
    own = [(f"/in/site={camera % 2}/cam{camera}/a.tar#0.jpg", KINDS[camera]) for camera in range(3)]
    path = table(tmp_path / "l.csv", ["image_uri", "species"], own)
    assert main([f"{here}/results", f"{here}/again", "--labels", path]) == 2
    assert "each of the 3 labelled cameras alone has some species" in capsys.readouterr().err


def test_labels_that_cannot_be_used_are_counted(here: str, tmp_path: Path, capsys: Any) -> None:
    archive(f"{here}/results", range(4))
    path = labels(tmp_path, "bird", range(4))
    with Path(path).open("a") as file:
        file.write(
            "/in/site=0/cam0/a.tar#broken.jpg,robin\n/in/gone.tar#1.jpg,robin\n/in/site=0/cam0/a.tar#x.jpg,robin\n"
        )
    content = Path(path).read_text().replace("cam3/a.tar#0.jpg,", "cam3/a.tar#0.jpg,dodo ", 1)
    Path(path).write_text(content)
    assert main([f"{here}/results", f"{here}/again", "--calibrate", path]) == 0
    out = capsys.readouterr().out
    assert f"2 of {4 * PER_CAMERA + 3} labels match no row" in out
    assert "1 labels are of failed images" in out
    assert "1 labels are of 1 species that the model does not know, such as 'dodo" in out
