import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trapline.config import RunConfig
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.results.fingerprint import Fingerprint
from trapline.run import job as module
from trapline.run.job import fingerprint

# Options that reach the rows by themselves; those that reach them through the model; and those that do not.
REACH_THE_ROWS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"probabilities": "top-k"},
    {"embedding": "float16"},
    {"embedding": "none"},
    {"features": ("stage4",)},
    {"decode": "fast"},
]
THROUGH_THE_MODEL = {"model", "architecture", "size", "precision"}
THROUGH_DETECTIONS: dict[str, Any] = {
    "detections": "md.json",
    "detection_threshold": 0.5,
    "detection_categories": ("person",),
    "crop_padding": 0.0,
    "crop_square": False,
    "without_boxes": "skip",
}
WITHOUT_EFFECT: dict[str, Any] = {
    "inputs": ("elsewhere", "too"),
    "output": "s3://elsewhere",
    "model": "another/name-of-the-same-weights",
    "batch_size": 3,
    "device": "cuda",
    "decode_workers": 7,
    "predict_workers": 2,
    "gpus_per_actor": 0.5,
    "limit": 1,
    "since": "7d",
    "where": ("site=12",),
    "stop_at": "06:00",
    "notify": "mail",
    "log": "json",
    "keep_runs": 1,
    "replace": True,
    "dry_run": True,
    "max_failed_fraction": 0.1,
}


def config(**options: Any) -> RunConfig:
    return RunConfig(**{"inputs": ("archive",), "output": "results", "model": "model.pt"} | options)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return checkpoint.load(str(tiny_model))


@pytest.mark.parametrize("options", REACH_THE_ROWS, ids=str)
def test_an_option_that_reaches_the_rows_changes_the_digest(model: Model, options: dict[str, Any]) -> None:
    (name,) = options
    before, after = fingerprint(config(), model, "fp32"), fingerprint(config(**options), model, "fp32")
    assert before.digest != after.digest
    assert [difference.partition(":")[0] for difference in before.differences(after)] == [name]


@pytest.mark.parametrize(("option", "value"), WITHOUT_EFFECT.items())
def test_an_option_that_does_not_reach_the_rows_changes_nothing(model: Model, option: str, value: Any) -> None:
    assert fingerprint(config(**{option: value}), model, "fp32") == fingerprint(config(), model, "fp32")


@pytest.mark.parametrize(("option", "value"), THROUGH_DETECTIONS.items())
def test_options_of_crops_reach_the_rows_where_there_are_detections(model: Model, option: str, value: Any) -> None:
    assert fingerprint(config(**{option: value}), model, "fp32") == fingerprint(config(), model, "fp32")
    one, other = (fingerprint(config(**some), model, "fp32", "ab" * 32) for some in ({}, {option: value}))
    assert one.differences(fingerprint(config(), model, "fp32"))
    # Of the file its content counts, and not its name.
    assert [text.partition(":")[0] for text in one.differences(other)] == [option] * (option != "detections")
    assert one.differences(fingerprint(config(), model, "fp32", "cd" * 32)) != []


def test_of_every_option_it_is_known_whether_it_reaches_the_rows() -> None:
    known = {name for options in REACH_THE_ROWS for name in options} | THROUGH_THE_MODEL | set(WITHOUT_EFFECT)
    known |= set(THROUGH_DETECTIONS)
    assert known == set(RunConfig.model_fields)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("weights_sha256", {"weights_sha256": "0" * 64}),
        ("classes_sha256", {"classes": tuple(f"species {index}" for index in (1, 0, 2, 3, 4))}),
        ("size", {"size": (64, 96)}),
        ("rgb_mean", {"rgb_mean": (0.5, 0.5, 0.5)}),
        ("rgb_std", {"rgb_std": (0.2, 0.2, 0.2)}),
        ("architecture", {"variant": "hiera_tiny"}),
    ],
)
def test_another_model_changes_the_digest(model: Model, name: str, changes: dict[str, Any]) -> None:
    before, after = (fingerprint(config(), each, "fp32") for each in (model, replace(model, **changes)))
    assert before.digest != after.digest
    assert [difference.partition(":")[0] for difference in before.differences(after)] == [name]


def test_another_shape_of_the_network_changes_the_digest(model: Model) -> None:
    deeper = replace(model, architecture=replace(model.architecture, depths=(1, 1, 2, 1)))
    assert fingerprint(config(), model, "fp32").digest != fingerprint(config(), deeper, "fp32").digest


def test_precision_preprocessing_and_schema_change_the_digest(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [fingerprint(config(), model, precision).digest for precision in ("fp32", "bf16")]
    monkeypatch.setattr(module, "PREPROCESSING", module.PREPROCESSING | {"interpolation": "bilinear"})
    digests.append(fingerprint(config(), model, "fp32").digest)
    monkeypatch.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 1)
    digests.append(fingerprint(config(), model, "fp32").digest)
    assert len(set(digests)) == 4


def test_it_comes_back_from_json_equal(model: Model) -> None:
    mark = fingerprint(config(features=("stage1", "stage2")), model, "bf16")
    copy = Fingerprint.from_json(mark.to_json())
    assert copy == mark
    assert copy.digest == mark.digest
    assert copy.differences(mark) == []


def test_another_process_comes_to_the_same_digest(model: Model, tiny_model: Path) -> None:
    program = (
        "from trapline.model import checkpoint; from trapline.config import RunConfig;"
        "from trapline.run.job import fingerprint;"
        f"config = RunConfig(inputs=('elsewhere',), output='results', model={str(tiny_model)!r});"
        "print(fingerprint(config, checkpoint.load(config.model), 'fp32').digest)"
    )
    env = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint(config(), model, "fp32").digest
