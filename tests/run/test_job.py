import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.archives import write_tiny_checkpoint
from trapline.config import RunConfig
from trapline.decoding.decode import Facts
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor
from trapline.results.fingerprint import Fingerprint
from trapline.results.rows import image_rows, table, with_predictions
from trapline.run import job as module
from trapline.run.job import columns_of, fingerprint
from trapline.sources.records import Record

# Options that reach the rows by themselves; those that reach them through the model; and those that do not.
REACH_THE_ROWS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"probabilities": "top-k"},
    {"embedding": "float16"},
    {"embedding": "none"},
    {"features": ("stage4",)},
    {"decode": "fast"},
    {"image_column": "photo"},
    {"video_fps": 2.0},
    {"video_frames": 30},
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
    "detections_unmatched": "error",
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
    "part": "3/8",
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


def test_results_without_clips_are_others_and_how_clips_would_be_sampled_does_not_count(model: Model) -> None:
    without = fingerprint(config(video=False), model, "fp32")
    assert without.digest != fingerprint(config(), model, "fp32").digest
    assert without == fingerprint(config(video=False, video_fps=3.0, video_frames=7), model, "fp32")


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


def test_a_gpu_in_bf16_computes_rows_that_no_other_device_does(model: Model) -> None:
    digests = {
        (precision, device): fingerprint(config(), model, precision, device=device).digest
        for precision in ("fp32", "bf16")
        for device in ("cpu", "cuda")
    }
    assert digests["fp32", "cpu"] == digests["fp32", "cuda"]
    assert digests["bf16", "cpu"] != digests["bf16", "cuda"]


def test_of_every_option_it_is_known_whether_it_reaches_the_rows() -> None:
    known = {name for options in REACH_THE_ROWS for name in options} | THROUGH_THE_MODEL | set(WITHOUT_EFFECT)
    known |= set(THROUGH_DETECTIONS) | {"video"}
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
    digests = [fingerprint(config(), model, precision).digest for precision in ("fp32", "bf16")]  # type: ignore[arg-type]
    digests += [fingerprint(config(), model, "checked", bound=bound).digest for bound in (0.1, 0.2)]
    monkeypatch.setattr(module, "PREPROCESSING", module.PREPROCESSING | {"interpolation": "bilinear"})
    digests.append(fingerprint(config(), model, "fp32").digest)
    monkeypatch.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 1)
    digests.append(fingerprint(config(), model, "fp32").digest)
    assert len(set(digests)) == 6


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


class TestColumns:
    def test_the_columns_of_a_run_are_complete_and_typed(self, tiny_model: Path) -> None:
        columns = columns_of(config(features=("stage4", "stage3")), checkpoint.load(str(tiny_model)))
        word = "dictionary<values=string, indices=int32, ordered=0>"
        assert {field.name: str(field.type) for field in columns.schema} == {
            "image_uri": "string",
            "shard": word,
            "key": "string",
            "media_type": word,
            "frame_seconds": "double",
            "status": word,
            "error": "string",
            "content_sha256": "fixed_size_binary[32]",
            "width": "int32",
            "height": "int32",
            "format": word,
            "duration_seconds": "double",
            "frame_rate": "double",
            "captured_at": "timestamp[ms]",
            "captured_at_tag": word,
            "captured_at_offset": word,
            "latitude": "double",
            "longitude": "double",
            "camera_make": word,
            "camera_model": word,
            "camera_serial": word,
            "metadata": "string",
            "identity": "string",
            "precision": word,
            "species": word,
            "probability": "float",
            "top_k": "list<item: struct<species: string, probability: float>>",
            "energy": "float",
            "probabilities": "list<item: float>",
            "embedding": "list<item: float>",
            "features_stage3": "list<item: halffloat>",
            "features_stage4": "list<item: halffloat>",
        }

    def test_widths_are_those_of_the_network(self, tiny_model: Path) -> None:
        model = checkpoint.load(str(tiny_model), size=(96, 64))
        stages = ("stage1", "stage2", "stage3", "stage4")
        columns = columns_of(config(features=stages), model)
        pixels = np.zeros((1, 3, 96, 64), dtype=np.uint8)
        found = Predictor(model, "cpu", "fp32", 1, stages)(pixels)
        assert columns.feature_shapes == {stage: map_.shape[1:] for stage, map_ in found.features.items()}
        assert columns.feature_shapes["stage1"] == (16, 24, 16)
        assert columns.embedding_size == found.embedding.shape[1]

    def test_top_k_ends_where_the_classes_do(self, tiny_model: Path) -> None:
        assert columns_of(config(top_k=100), checkpoint.load(str(tiny_model))).top_k == 5

    def test_what_is_not_asked_for_is_not_there(self, tiny_model: Path) -> None:
        columns = columns_of(config(probabilities="top-k", embedding="none"), checkpoint.load(str(tiny_model)))
        names = [field.name for field in columns.model_fields]
        assert names == ["precision", "species", "probability", "top_k", "energy"]

    def test_without_classes_the_embedding_remains(self, tmp_path: Path) -> None:
        model = checkpoint.load(str(write_tiny_checkpoint(tmp_path, classes=0)))
        columns = columns_of(config(), model)
        assert [field.name for field in columns.model_fields] == ["precision", "embedding"]
        found = Predictor(model, "cpu", "fp32", 2)(np.zeros((1, 3, 64, 64), dtype=np.uint8))
        facts = [Facts("failed", "empty: the file has no bytes"), Facts("ok", None)]
        half = image_rows("s3://b/a.tar", [Record("0.jpg", None), Record("1.jpg", None)], facts)
        row = table([with_predictions(half, found, columns)], columns)
        np.testing.assert_array_equal(row.column("embedding")[1].as_py(), found.embedding[0])
        assert row.column("embedding")[0].as_py() is None

    def test_the_model_is_not_run_to_find_its_widths(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = checkpoint.load(str(tiny_model))
        monkeypatch.setattr(model.network, "predict", None)
        before = torch.get_rng_state()
        assert columns_of(config(), model).embedding_size == 128
        assert torch.equal(torch.get_rng_state(), before)
