"""The benchmarks themselves, on little: that they measure what they say, and take turns."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from jobs.benchmark import contenders, decoding, main, rounds
from jobs.benchmark.checked import Pictures
from jobs.benchmark.checked import measure as measure_checked
from jobs.benchmark.clips import measure as measure_clips
from jobs.benchmark.contenders import Contender
from jobs.benchmark.flat_tables import measure as measure_tables
from jobs.benchmark.model import SIDES, Row, gflop_per_image, random_model
from jobs.benchmark.model import measure as measure_model
from jobs.benchmark.planning import measure as measure_planning
from jobs.benchmark.rounds import Spread, Timing, take_turns
from jobs.benchmark.whole_runs import PRECISIONS, Seconds, rows_of
from tests.support.archives import jpeg, write_folder
from tests.support.numerics import smooth_pixels
from trapline.model import checkpoint
from trapline.model.checkpoint import Model
from trapline.model.rounding import measure_bound

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")

QUIET = Console(quiet=True)


@pytest.fixture
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak of the machine is measured in no time, and is none."""
    monkeypatch.setitem(SIDES, "cpu", 64)


class TestRounds:
    def test_contenders_take_turns_and_the_first_round_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, done = 0.0, []
        monkeypatch.setattr(rounds, "perf_counter", lambda: now)

        def work(name: str, seconds: float) -> int:
            nonlocal now
            done.append(name)
            now += seconds
            return 10

        timings = take_turns(QUIET, {"a": lambda: work("a", 2), "b": lambda: work("b", 8)}, rounds=2)
        assert done == ["a", "b"] * 3
        assert timings == {"a": Timing(10, [2, 2]), "b": Timing(10, [8, 8])}
        assert timings["a"].rate == 5
        assert timings["a"].times_as_fast_as(timings["b"]) == Spread(4, 4, 4)

    def test_ratios_are_those_within_a_round(self) -> None:
        # A machine that is three times as slow in the second round changes no ratio.
        ours, theirs = Timing(10, [1, 3, 1]), Timing(20, [4, 12, 4])
        assert ours.times_as_fast_as(theirs) == Spread(2, 2, 2)


def test_rates_of_whole_programs_are_those_of_median_times_and_their_range_that_of_the_rounds() -> None:
    # 10 s of start, then 5 images a second; in one round something else takes 4 s of the small archive's run.
    ours = Seconds([12.0, 16.0, 12.0], [30.0, 30.0, 30.0])
    other = Seconds([11.0, 11.0, 11.0], [47.0, 47.0, 56.0])
    names = [*PRECISIONS.values(), "other"]
    rows = rows_of(dict.fromkeys(names, ours) | {"other": other}, 10, 100)
    assert [row.name for row in rows] == names
    assert (rows[0].images_per_second, rows[0].start_seconds, rows[0].seconds) == (5, 10, ours)
    assert (rows[-1].images_per_second, rows[-1].start_seconds) == (2.5, 7)
    assert rows[-1].as_fast_as == dict.fromkeys(PRECISIONS, "2.00 (2.00-2.57)")


def test_checked_counts_the_classes_that_each_precision_changes(tiny_model: Path) -> None:
    pictures = Pictures("photographs", torch.from_numpy(smooth_pixels(9)), {})
    model = checkpoint.load(str(tiny_model))
    (row,) = measure_checked(QUIET, [model], [pictures], images=70)
    assert (row.network, row.pictures, row.images) == (str(tiny_model), "photographs", 70)
    assert row.changed_by_checked <= row.changed_by_bf16 < 70
    assert 0 < row.probability_error < 0.5
    assert 0.99 < row.cosine < 1
    assert row.bound == measure_bound(model)


def test_decoding_measures_each_way_and_what_it_changes(tiny_model: Path) -> None:
    images = [jpeg(seed, (800, 600)) for seed in range(3)]
    rows = {row.name: row for row in decoding.measure(QUIET, images, checkpoint.load(str(tiny_model)), rounds=1)}
    assert list(rows) == ["birder, Pillow loader", "birder, default loader"] + [
        f"trapline {mode}" for mode in ("exact", "close", "fast", "fastest")
    ]
    assert (rows["birder, default loader"].largest_difference, rows["trapline exact"].largest_difference) == (0, 0)
    assert rows["trapline fast"].mean_difference > 0
    assert all(row.images_per_second > 0 for row in rows.values())


def test_clips_of_each_kind_are_measured_beside_photographs(tiny_model: Path) -> None:
    found = measure_clips(QUIET, checkpoint.load(str(tiny_model)), 2, 1, size=(192, 128), photograph=(96, 64))
    rows = {row.kind: row for row in found.rows}
    assert {"H.264 in MP4", "H.265 in MP4", "Motion JPEG in AVI", "VP9 in WebM"} <= set(rows)
    for row in found.rows:
        assert row.frames == 2  # one of each second
        assert 0 < row.megabytes < 1
        assert min(row.frames_per_second, row.in_sandbox.median) > 0
        assert min(row.photographs_decoded.lowest, row.photographs_classified.lowest) > 0


def test_damage_is_measured_against_the_same_files_sound() -> None:
    costs = decoding.cost_of_damage(QUIET, [jpeg(seed, (1600, 1200)) for seed in range(3)], (64, 64), rounds=2)
    # A file that is refused by its first bytes is not decoded.
    assert costs["no image"].median < costs["cut in half"].median


def test_planning_sees_all_shards_done_with_and_without_the_cache(bucket: str) -> None:
    steps = [row.step for row in measure_planning(QUIET, f"{bucket}/place", 40)]
    assert steps[-1] == "plan, from the cache"


def test_questions_to_tables_take_fewer_requests_than_those_to_results(bucket: str) -> None:
    results, tables, *_ = measure_tables(QUIET, f"{bucket}/place", shards=10, images=2)
    assert (results.files, tables.files) == (10, 1)
    assert results.requests > 2 * tables.requests > 0
    assert results.megabytes > tables.megabytes > 0


@pytest.mark.usefixtures("small_matrices")
def test_the_model_benchmark_prints_a_table_and_writes_its_figures_without_ray(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    file, photographs = tmp_path / "model.json", tmp_path / "photographs"
    write_folder(photographs, {f"{seed}.jpg": jpeg(seed) for seed in range(5)})
    options = ["--batch-size", "2", "--batch-size", "8", "--rounds", "1", "--no-compiled", "--json", str(file)]
    assert main(["model", str(photographs), "--model", str(tiny_model), *options]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(file.read_text())
    rows = {(row["name"], row["batch_size"]): row for row in figures["rows"]}
    for size in (2, 8):
        # In float32 some 1e-6, in bfloat16 above 1e-2, whatever the processor.
        assert rows["trapline fp32", size]["max_probability_error"] < 1e-3
        assert rows["trapline fp32", size]["times_birder"]["median"] == 1
    assert all(row["images_per_second"] > 0 and row["trouble"] is None for row in rows.values())
    assert all(name.split()[0] in printed for name, _ in rows)
    assert "5 photographs" in printed
    assert figures["machine"]["cores"] >= 1


@pytest.mark.usefixtures("small_matrices")
def test_a_network_that_has_no_memory_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    birder = contenders._birder

    def short_of_memory(model: Model, device: Any, precision: Any) -> Contender:
        if precision == "bf16":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return birder(model, device, precision)

    monkeypatch.setattr(contenders, "_birder", short_of_memory)
    rows, _ = measure_model(QUIET, random_model("hiera_abswin_tiny", (64, 64)), None, "cpu", (2,), 1, compiled=False)
    rows_by_name = {row.name: row for row in rows}
    assert rows_by_name.pop("birder bf16 autocast") == Row("birder bf16 autocast", 2, trouble="out of memory")
    assert list(rows_by_name)[:2] == ["birder fp32", "trapline fp32"]
    assert all(row.images_per_second and row.times_birder for row in rows_by_name.values())
    assert rows_by_name["trapline fp32"].cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.gpu
def test_on_a_gpu_our_network_is_measured_in_every_way_that_it_is_used(tiny_model: Path) -> None:
    model = checkpoint.load(str(tiny_model))
    rows, _ = measure_model(QUIET, model, None, "cuda", (4, 16), 1, compiled=True, tuned=True)
    assert [row.trouble for row in rows] == [None] * len(rows)
    ways = [
        "fp32",
        "bf16",
        "bf16, from the host",
        "bf16 compiled",
        "bf16 compiled, tuned",
        "bf16 compiled, from the host",
    ]
    assert {f"trapline {way}" for way in ways} < {row.name for row in rows}
    assert all(row.cosine is not None and row.cosine >= 0.999 for row in rows)


def test_products_are_counted() -> None:
    assert gflop_per_image(random_model()) == pytest.approx(60.4, abs=0.05)


def test_a_folder_without_photographs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    assert main(["decode", str(tmp_path)]) == 2
    assert "holds no image that can be decoded" in capsys.readouterr().err
