import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.clip_rows import clip_rows
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis.rescoring.head import Head
from trapline.analysis.rescoring.scorer import Scorer
from trapline.analysis.rescoring.species_list import Prior
from trapline.analysis.rescoring.taxonomy import RollUp, Taxonomy
from trapline.results.clip_pooling import total
from trapline.results.schema import IMAGE_FIELDS

CLASSES = ("tawny owl", "ural owl", "robin", "wren")
TREE = Taxonomy("t.csv", {"tawny owl": ("Strix", None, "Aves"), "ural owl": ("Strix", None, "Aves")})
# Probabilities 0.4, 0.4, 0.1, 0.1.
LOGITS = tuple(math.log(share) for share in (0.4, 0.4, 0.1, 0.1))


def scored(
    folder: Path, scorer: Scorer, images: list[Planted] | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    images = images or [
        Planted("a.jpg", LOGITS, (1, 0), facts={"content_sha256": b"a" * 32}),
        Planted("broken.jpg", status="failed", error="empty: x"),
        Planted("b.jpg", (9, 0, 0, 0), (0, 1), status="salvaged", error="truncated: x"),
    ]
    write_result(str(folder), "/in/cam1/a.tar", "a.tar", images, columns(CLASSES, 2))
    remarks: Counter[str] = Counter()
    (batch,) = pq.ParquetFile(folder / "a.tar.parquet").iter_batches(columns=scorer.reads)
    table = scorer(batch, remarks)
    assert table.schema == scorer.schema
    return table.to_pylist(), +remarks


def test_keys_stay_and_failed_rows_stay_with_nothing_in_them(tmp_path: Path) -> None:
    rows, _ = scored(tmp_path, Scorer(CLASSES, 2, roll_up=RollUp.of(TREE, CLASSES), temperature=2.0))
    assert [row["key"] for row in rows] == ["a.jpg", "broken.jpg", "b.jpg"]
    assert [row["status"] for row in rows] == ["ok", "failed", "salvaged"]
    assert rows[0]["content_sha256"] == b"a" * 32
    assert {name for name, value in rows[1].items() if value is not None} == {
        "image_uri",
        "shard",
        "key",
        "status",
        "error",
        "media_type",
    }
    assert {field.name for field in IMAGE_FIELDS} < set(rows[0])


def test_a_file_of_nothing_but_failed_rows_is_scored_too(tmp_path: Path) -> None:
    head = Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("a", "b"), {})
    prior = Prior({"": np.array([True, False])})
    rows, _ = scored(
        tmp_path, Scorer(("a", "b"), 2, head, 2.0, prior), [Planted("x", status="failed", error="empty: x")]
    )
    assert [row["species"] for row in rows] == [None]


def test_a_temperature_divides_the_logits_and_leaves_the_energy(tmp_path: Path) -> None:
    rows, _ = scored(tmp_path, Scorer(CLASSES, 4, temperature=2.0))
    assert rows[0]["probabilities"] == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    assert rows[2]["probability"] == pytest.approx(math.exp(4.5) / (math.exp(4.5) + 3))
    assert rows[2]["energy"] == pytest.approx(math.log(math.exp(9) + 3))
    assert rows[2]["top_k"][0] == {"species": "tawny owl", "probability": rows[2]["probability"]}


def test_a_list_takes_mass_from_what_cannot_occur_and_says_how_much_was_left(tmp_path: Path) -> None:
    prior = Prior({"": np.array([False, True, True, True])})
    rows, _ = scored(tmp_path, Scorer(CLASSES, 4, prior=prior))
    assert rows[0]["probabilities"] == pytest.approx([0, 2 / 3, 1 / 6, 1 / 6])
    assert (rows[0]["species"], rows[0]["prior_mass"]) == ("ural owl", pytest.approx(0.6))


def test_without_a_list_for_the_place_probabilities_stand_to_the_bit(tmp_path: Path) -> None:
    rows, remarks = scored(tmp_path, Scorer(CLASSES, 4, prior=Prior({"cam9": np.array([True, False, False, False])})))
    stored = pq.read_table(tmp_path / "a.tar.parquet").to_pylist()
    assert [row["probabilities"] for row in rows] == [row["probabilities"] for row in stored]
    assert remarks == {"kept all species": 2}


def test_a_head_takes_the_place_of_the_stored_classes(tmp_path: Path) -> None:
    head = Head(np.array([[2, 0], [0, 1]], np.float32), np.array([0, 0.5], np.float32), ("fox", "hare"), {})
    rows, _ = scored(tmp_path, Scorer(head.classes, 2, head))
    assert [row["species"] for row in rows] == ["fox", None, "hare"]
    assert rows[0]["probability"] == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert rows[0]["energy"] == pytest.approx(math.log(math.exp(2) + math.exp(0.5)))


def test_steps_come_in_order_temperature_list_roll_up(tmp_path: Path) -> None:
    # 0.4, 0.4, 0.1, 0.1 at temperature 0.5 is 16, 16, 1, 1 of 34; without the wren the owls have 32 of 33.
    scorer = Scorer(
        CLASSES, 2, None, 0.5, Prior({"": np.array([True, True, True, False])}), RollUp.of(TREE, CLASSES), 0.9
    )
    rows, remarks = scored(tmp_path, scorer)
    assert (rows[0]["taxon"], rows[0]["rank"]) == ("Strix", "genus")
    assert rows[0]["taxon_probability"] == pytest.approx(32 / 33)
    assert rows[0]["prior_mass"] == pytest.approx(33 / 34)
    assert (rows[2]["taxon"], rows[2]["rank"]) == ("tawny owl", "species")
    assert remarks == {"named by genus": 1, "named by species": 1}


def test_probabilities_that_were_stored_as_zero_are_counted(tmp_path: Path) -> None:
    rows, remarks = scored(tmp_path, Scorer(CLASSES, 2, temperature=2.0), [Planted("a", (200, 0, 0, 0), (0, 0))])
    assert remarks == {"had a probability stored as 0, taken for 1.2e-38": 1}
    assert rows[0]["probability"] == 1.0


@pytest.mark.parametrize("rows_at_once", [100, 2])
@pytest.mark.parametrize("crops", [False, True])
def test_a_clip_has_the_mean_of_its_new_frames_or_crops(rows_at_once: int, crops: bool, tmp_path: Path) -> None:
    frames = [((3, 0, 0, 0), (1, 0)), ((0, 1, 0, 5), (0, 1)), ((0, 0, 2, 0), (4, 2))]
    rows = clip_rows([Planted("a.mp4", logits, embedding) for logits, embedding in frames])
    if crops:
        rows += [replace(rows[1], logits=frames[2][0], crop=1), replace(rows[1], logits=frames[1][0], crop=2)]
    rows += [Planted("b.jpg", LOGITS, (1, 0)), *clip_rows([Planted("c.mp4", LOGITS, (0, 1))])]
    write_result(str(tmp_path), "/in/cam1/a.tar", "a.tar", rows, columns(CLASSES, 2, crops=crops))
    head = Head(np.eye(4, 2, dtype=np.float32), np.zeros(4, np.float32), CLASSES, {})
    prior, roll_up = Prior({"": np.array([True, True, True, False])}), RollUp.of(TREE, CLASSES)
    for scorer in (
        Scorer(CLASSES, 4, head, 0.5, crops=crops),
        Scorer(CLASSES, 4, None, 2.0, prior, roll_up, crops=crops),
    ):
        file = pq.ParquetFile(tmp_path / "a.tar.parquet")
        clips = total([scorer.sums(batch) for batch in file.iter_batches(rows_at_once, columns=scorer.reads)])
        assert clips.keys() == {"a.mp4", "c.mp4"}
        found = [row for batch in file.iter_batches(rows_at_once, columns=scorer.reads) for row in scorer(batch, Counter(), clips).to_pylist()]  # fmt: skip
        parts = [row for row in found if row["key"] == "a.mp4" and row["frame_seconds"] is not None]
        parts = [row for row in parts if row["crop"]] if crops else parts
        assert len(parts) == (2 if crops else 3)
        names = ("probabilities", "energy", *(("prior_mass",) if scorer.prior else ()))
        for name in names:
            np.testing.assert_allclose(found[0][name], np.mean([row[name] for row in parts], axis=0), rtol=1e-5)
        assert found[0]["probability"] == max(found[0]["probabilities"])
        if scorer.roll_up:
            species = [found[0]["species"]]
            expected = scorer.roll_up(np.float32([found[0]["probabilities"]]), species, scorer.threshold)
            assert [found[0][name] for name in ("taxon", "rank")] == [column[0].as_py() for column in expected[:2]]


def test_photographs_are_as_without_clips_and_a_clip_without_frames_as_its_own_row_says(tmp_path: Path) -> None:
    scorer = Scorer(CLASSES, 4, temperature=2.0)
    clip, *frames = clip_rows([Planted("a.mp4", (3, 0, 0, 0), (1, 0)), Planted("a.mp4", (0, 0, 4, 0), (1, 0))])
    alone, _ = scored(tmp_path / "alone", scorer, [clip, Planted("b.jpg", LOGITS, (1, 0))])
    write_result(str(tmp_path), "/in/cam1/a.tar", "a.tar", [clip, *frames, Planted("b.jpg", LOGITS, (1, 0))], columns(CLASSES, 2))  # fmt: skip
    (batch,) = pq.ParquetFile(tmp_path / "a.tar.parquet").iter_batches(columns=scorer.reads)
    rows = scorer(batch, Counter(), total([scorer.sums(batch)])).to_pylist()
    assert rows[3] == alone[1]
    assert rows[0]["probabilities"] != alone[0]["probabilities"] == rows[1]["probabilities"]
