from dataclasses import fields
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archives import write_tiny_checkpoint
from trapline.config import RunConfig
from trapline.decoding.decode import Facts
from trapline.model import checkpoint
from trapline.model.predict import Predictor
from trapline.model.predictions import Predictions
from trapline.results import rows
from trapline.results.rows import IMAGE_FIELDS, Columns, image_rows, table, usable, with_predictions
from trapline.sources.records import Record

OK = Facts(
    "ok", None, b"\1" * 32, 640, 480, "jpeg", datetime(2024, 5, 17, 3, 12, 9), 51.5, -0.1, "RECONYX", "HP2X", "A1"
)
SALVAGED = Facts("salvaged", "truncated: the file breaks off", b"\2" * 32, 640, 480, "jpeg")
FAILED = Facts("failed", "empty: the file has no bytes")

COLUMNS = Columns(
    classes=("wren", "owl", "heron"),
    embedding_size=4,
    feature_shapes={"stage4": (2, 1, 2)},
    top_k=2,
    probabilities=True,
    embedding="float32",
)


def batch(facts: list[Facts]) -> pa.RecordBatch:
    return image_rows("s3://b/a.tar", [Record(f"{number}.jpg", None) for number in range(len(facts))], facts)


def predictions(probabilities: npt.ArrayLike) -> Predictions:
    """Of these probabilities, with all else as varied as it gets."""
    rng = np.random.default_rng(0)
    array = np.asarray(probabilities, dtype=np.float32)
    return Predictions(
        probabilities=array,
        energy=rng.normal(size=len(array)).astype(np.float32),
        embedding=rng.normal(size=(len(array), 4)).astype(np.float32),
        features={"stage4": rng.normal(size=(len(array), 2, 1, 2)).astype(np.float16)},
    )


def config(**options: Any) -> RunConfig:
    return RunConfig(**{"inputs": ("archive",), "output": "results", "model": "model.pt"} | options)


class TestSchema:
    def test_the_columns_of_a_run_are_complete_and_typed(self, tiny_model: Path) -> None:
        columns = Columns.of(config(features=("stage4", "stage3")), checkpoint.load(str(tiny_model)))
        word = "dictionary<values=string, indices=int32, ordered=0>"
        assert {field.name: str(field.type) for field in columns.schema} == {
            "image_uri": "string",
            "key": "string",
            "status": word,
            "error": "string",
            "content_sha256": "fixed_size_binary[32]",
            "width": "int32",
            "height": "int32",
            "format": word,
            "captured_at": "timestamp[ms]",
            "latitude": "double",
            "longitude": "double",
            "camera_make": word,
            "camera_model": word,
            "camera_serial": word,
            "metadata": "string",
            "identity": "string",
            "species": word,
            "probability": "float",
            "top_k": "list<item: struct<species: string, probability: float>>",
            "energy": "float",
            "probabilities": "fixed_size_list<item: float>[5]",
            "embedding": "fixed_size_list<item: float>[128]",
            "features_stage3": "fixed_size_list<item: halffloat>[1024]",  # 64 channels x 4 x 4
            "features_stage4": "fixed_size_list<item: halffloat>[512]",  # 128 channels x 2 x 2
        }

    def test_every_column_is_described(self) -> None:
        assert all(field.metadata[b"description"] for field in COLUMNS.schema)

    def test_every_fact_is_a_column(self) -> None:
        assert {field.name for field in fields(Facts)} < {field.name for field in IMAGE_FIELDS}

    def test_widths_are_those_of_the_network(self, tiny_model: Path) -> None:
        model = checkpoint.load(str(tiny_model), size=(96, 64))
        stages = ("stage1", "stage2", "stage3", "stage4")
        columns = Columns.of(config(features=stages), model)
        pixels = np.zeros((1, 3, 96, 64), dtype=np.uint8)
        found = Predictor(model, "cpu", "fp32", 1, stages)(pixels)
        assert columns.feature_shapes == {stage: map_.shape[1:] for stage, map_ in found.features.items()}
        assert columns.feature_shapes["stage1"] == (16, 24, 16)
        assert columns.embedding_size == found.embedding.shape[1]

    def test_top_k_ends_where_the_classes_do(self, tiny_model: Path) -> None:
        assert Columns.of(config(top_k=100), checkpoint.load(str(tiny_model))).top_k == 5

    def test_what_is_not_asked_for_is_not_there(self, tiny_model: Path) -> None:
        columns = Columns.of(config(probabilities="top-k", embedding="none"), checkpoint.load(str(tiny_model)))
        names = [field.name for field in columns.model_fields]
        assert names == ["species", "probability", "top_k", "energy"]

    def test_without_classes_the_embedding_remains(self, tmp_path: Path) -> None:
        model = checkpoint.load(str(write_tiny_checkpoint(tmp_path, classes=0)))
        columns = Columns.of(config(), model)
        assert [field.name for field in columns.model_fields] == ["embedding"]
        found = Predictor(model, "cpu", "fp32", 2)(np.zeros((1, 3, 64, 64), dtype=np.uint8))
        row = table([with_predictions(batch([FAILED, OK]), found, columns)], columns)
        np.testing.assert_array_equal(row.column("embedding")[1].as_py(), found.embedding[0])
        assert row.column("embedding")[0].as_py() is None


class TestTheDecodersHalf:
    def test_facts_keys_and_sidecars_are_columns(self) -> None:
        whole = image_rows(
            "s3://b/a.tar",
            [Record("DCIM/1.jpg", None, '{"site": "fen"}'), Record("2.jpg", None, identity="5-e")],
            [OK, FAILED],
        )
        first, second = whole.to_pylist()
        assert first == {
            **vars(OK),
            "image_uri": "s3://b/a.tar#DCIM/1.jpg",
            "key": "DCIM/1.jpg",
            "metadata": '{"site": "fen"}',
            "identity": None,
        }
        assert second["identity"] == "5-e"
        assert second.items() >= {**vars(FAILED), "image_uri": "s3://b/a.tar#2.jpg", "metadata": None}.items()

    def test_what_was_salvaged_is_usable_and_what_failed_is_not(self) -> None:
        assert usable(batch([OK, FAILED, SALVAGED])).tolist() == [True, False, True]


class TestWithPredictions:
    @settings(deadline=None)  # machines are busy at times
    @given(st.lists(st.sampled_from([OK, SALVAGED, FAILED]), max_size=9))
    def test_each_usable_row_gets_its_own_prediction_and_the_others_none(self, facts: list[Facts]) -> None:
        count = sum(fact is not FAILED for fact in facts)
        made = predictions(np.random.default_rng(count).dirichlet((1, 1, 1), size=count))
        found = with_predictions(batch(facts), made if count else None, COLUMNS).to_pylist()
        prediction = iter(range(count))
        for fact, row in zip(facts, found, strict=True):
            assert row["status"] == fact.status
            if fact is FAILED:
                assert {row[field.name] for field in COLUMNS.model_fields} == {None}
                continue
            place = next(prediction)
            best = int(made.probabilities[place].argmax())
            assert row["species"] == COLUMNS.classes[best]
            assert row["probability"] == made.probabilities[place, best]
            assert row["top_k"][0] == {"species": row["species"], "probability": row["probability"]}
            assert row["energy"] == made.energy[place]
            np.testing.assert_array_equal(row["probabilities"], made.probabilities[place])
            np.testing.assert_array_equal(row["embedding"], made.embedding[place])
            np.testing.assert_array_equal(row["features_stage4"], made.features["stage4"][place].ravel())

    @settings(deadline=None)  # machines are busy at times
    @given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=4))
    def test_top_k_are_the_largest_in_falling_order(self, probabilities: list[list[float]]) -> None:
        for row in with_predictions(batch([OK] * len(probabilities)), predictions(probabilities), COLUMNS).to_pylist():
            listed = [entry["probability"] for entry in row["top_k"]]
            assert listed == sorted(row["probabilities"], reverse=True)[:2]
            for entry in row["top_k"]:
                assert entry["probability"] == row["probabilities"][COLUMNS.classes.index(entry["species"])]
            assert all(one != other for one, other in pairwise(entry["species"] for entry in row["top_k"]))

    def test_of_equals_the_first_class_wins(self) -> None:
        (row,) = with_predictions(batch([OK]), predictions([[0.2, 0.4, 0.4]]), COLUMNS).to_pylist()
        assert [entry["species"] for entry in row["top_k"]] == ["owl", "heron"]

    def test_an_embedding_can_be_rounded_to_half_its_width(self) -> None:
        columns = rows.Columns(**{**vars(COLUMNS), "embedding": "float16"})
        made = predictions([[0.2, 0.5, 0.3]])
        whole = table([with_predictions(batch([OK]), made, columns)], columns)
        assert str(whole.schema.field("embedding").type) == "fixed_size_list<item: halffloat>[4]"
        np.testing.assert_array_equal(whole.column("embedding")[0].as_py(), made.embedding[0].astype(np.float16))


class TestTable:
    def test_chunks_with_other_words_become_one_column_with_one_dictionary(self) -> None:
        chunks = [
            with_predictions(batch([OK, FAILED]), predictions([[0.9, 0.1, 0]]), COLUMNS),
            with_predictions(batch([FAILED]), None, COLUMNS),
            with_predictions(batch([SALVAGED, OK]), predictions([[0, 0.1, 0.9], [0.8, 0.2, 0]]), COLUMNS),
        ]
        whole = table(chunks, COLUMNS)
        assert whole.schema.equals(COLUMNS.schema, check_metadata=True)
        whole.validate(full=True)
        species = whole.column("species")
        assert species.to_pylist() == ["wren", None, None, "heron", "wren"]
        assert {tuple(chunk.dictionary.to_pylist()) for chunk in species.chunks} == {("wren", "heron")}
        assert whole.column("status").to_pylist() == ["ok", "failed", "failed", "salvaged", "ok"]
        assert whole.to_pylist() == [row for chunk in chunks for row in chunk.to_pylist()]

    def test_an_empty_shard_has_a_table_too(self) -> None:
        whole = table([with_predictions(batch([]), None, COLUMNS)], COLUMNS)
        assert whole.num_rows == 0
        assert whole.schema.equals(COLUMNS.schema)


def test_the_model_is_not_run_to_find_its_widths(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checkpoint.load(str(tiny_model))
    monkeypatch.setattr(model.network, "predict", None)
    before = torch.get_rng_state()
    assert Columns.of(config(), model).embedding_size == 128
    assert torch.equal(torch.get_rng_state(), before)
