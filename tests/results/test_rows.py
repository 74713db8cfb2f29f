from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results import rows
from trapline.results.rows import image_rows, table, usable, with_predictions
from trapline.results.schema import Columns
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
            "shard": "s3://b/a.tar",
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
            assert row["precision"] == "fp32"
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

    def test_each_row_says_in_which_precision_it_was_computed(self) -> None:
        made = replace(predictions([[0.2, 0.5, 0.3]] * 3), in_bf16=np.array([True, False, True]))
        found = with_predictions(batch([OK, OK, FAILED, OK]), made, COLUMNS).to_pylist()
        assert [row["precision"] for row in found] == ["bf16", "fp32", None, "bf16"]

    def test_of_equals_the_first_class_wins(self) -> None:
        (row,) = with_predictions(batch([OK]), predictions([[0.2, 0.4, 0.4]]), COLUMNS).to_pylist()
        assert [entry["species"] for entry in row["top_k"]] == ["owl", "heron"]

    def test_an_embedding_can_be_rounded_to_half_its_width(self) -> None:
        columns = rows.Columns(**{**vars(COLUMNS), "embedding": "float16"})
        made = predictions([[0.2, 0.5, 0.3]])
        whole = table([with_predictions(batch([OK]), made, columns)], columns)
        assert str(whole.schema.field("embedding").type) == "list<item: halffloat>"
        np.testing.assert_array_equal(whole.column("embedding")[0].as_py(), made.embedding[0].astype(np.float16))


class TestVectors:
    @pytest.mark.parametrize("dtype", [np.float32, np.float16])
    def test_become_a_matrix_again_without_a_copy(self, dtype: type) -> None:
        array = np.arange(12).reshape(3, 4).astype(dtype)
        lists = rows.vectors(array)
        assert lists.to_pylist() == array.tolist()
        found = rows.matrix(lists, 4)
        np.testing.assert_array_equal(found, array, strict=True)
        assert found.ctypes.data == lists.values.buffers()[1].address

    def test_of_some_rows_are_those_of_these_rows(self) -> None:
        array = np.arange(20, dtype=np.float32).reshape(5, 4)
        assert rows.matrix(rows.vectors(array[:0]), 4).shape == (0, 4)
        lists = rows.vectors(array).take(pa.array([0, None, 1, 2, 3]))
        np.testing.assert_array_equal(rows.matrix(lists.slice(2, 2), 4), array[1:3])
        np.testing.assert_array_equal(rows.matrix(lists.drop_null(), 4), array[:4])

    def test_of_earlier_results_which_are_lists_of_fixed_size_are_read_as_well(self) -> None:
        array = np.arange(20, dtype=np.float32).reshape(5, 4)
        np.testing.assert_array_equal(rows.matrix(pa.array(list(array), pa.list_(pa.float32(), 4)), 4), array)


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
