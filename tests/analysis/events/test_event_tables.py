import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.events import CLASSES, at, build, table, write
from tests.support.result_files import MARK, columns
from trapline.analysis.events import event_tables
from trapline.analysis.events.sessions import Gap


def test_an_event_of_failed_frames_has_no_species(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0, status="failed", error="truncated: x"), at(100)])
    build(str(tmp_path))
    what = "frames, failed, species, probability, top_k, best_frame, probabilities"
    assert table(str(tmp_path), select=what)[0] == (1, 1, None, None, None, None, None)


def test_frames_that_are_read_in_slices_are_the_same_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    moments = np.cumsum(rng.choice([1.0, 100.0], 40))
    for shard in range(4):
        images = [at(float(moment), rng.dirichlet(np.ones(3)), key=f"{moment}.jpg") for moment in moments[shard::4]]
        write(f"{tmp_path}/results", f"site=a/c1/{shard}.tar", images)
    build(str(tmp_path))
    before = table(str(tmp_path))
    monkeypatch.setattr(event_tables, "_FRAMES_AT_ONCE", 7)
    build(str(tmp_path), Gap(60.5), replace=True)
    assert table(str(tmp_path)) == before


def test_results_with_the_top_k_only_give_a_lower_bound(tmp_path: Path) -> None:
    few = columns(CLASSES, 2, probabilities=False)
    images = [at(0, (0.5, 0.4, 0.1)), at(1, (0.1, 0.6, 0.3))]
    write(f"{tmp_path}/results", "site=a/c1/1.tar", images, of=few)
    build(str(tmp_path))
    ((species, probability, top_k),) = table(str(tmp_path), select="species, probability, top_k")
    assert (species, probability) == ("robin", pytest.approx(0.5))
    assert [(entry["species"], entry["probability"]) for entry in top_k] == [
        ("robin", pytest.approx(0.5)), ("owl", pytest.approx(0.25)),
    ]  # fmt: skip
    (path,) = tmp_path.glob("events/events/*.parquet")
    assert "probabilities" not in pq.read_schema(path).names


def test_the_footer_names_the_classes_in_the_order_of_the_probabilities(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    build(str(tmp_path))
    (path,) = tmp_path.glob("events/events/*.parquet")
    assert json.loads(pq.read_metadata(path).metadata[b"trapline.classes"]) == CLASSES


def test_the_mark_of_the_results_stands_in_the_events(tmp_path: Path) -> None:
    write(f"{tmp_path}/results", "site=a/c1/1.tar", [at(0)])
    build(str(tmp_path))
    (path,) = tmp_path.glob("events/images/*.parquet")
    assert MARK.digest in pq.read_metadata(path).metadata[b"trapline.fingerprint"].decode()
