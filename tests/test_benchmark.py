"""The benchmarks themselves, on little: that they measure what they say, and take turns."""

import json
from pathlib import Path

import pytest
from archives import jpeg
from rich.console import Console

from jobs.benchmark import decoding, main, rounds
from jobs.benchmark.planning import measure as measure_planning
from jobs.benchmark.rounds import Spread, Timing, take_turns
from pipeline import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*TorchVision are deprecated")

QUIET = Console(quiet=True)


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


def test_decoding_measures_each_way_and_what_it_changes(tiny_model: Path) -> None:
    images = [jpeg(seed, (800, 600)) for seed in range(3)]
    rows = {row.name: row for row in decoding.measure(QUIET, images, checkpoint.load(str(tiny_model)), rounds=1)}
    assert list(rows) == ["birder, Pillow loader", "birder, default loader", "trapline exact", "trapline fast"]
    assert (rows["birder, default loader"].largest_difference, rows["trapline exact"].largest_difference) == (0, 0)
    assert rows["trapline fast"].mean_difference > 0
    assert all(row.images_per_second > 0 for row in rows.values())


def test_damage_is_measured_against_the_same_files_sound() -> None:
    costs = decoding.cost_of_damage(QUIET, [jpeg(seed, (1600, 1200)) for seed in range(3)], (64, 64), rounds=2)
    # A file that is refused by its first bytes is not decoded.
    assert costs["no image"].median < costs["cut in half"].median


def test_planning_sees_all_shards_done_with_and_without_the_cache(bucket: str) -> None:
    steps = [row.step for row in measure_planning(QUIET, f"{bucket}/place", 40)]
    assert steps[-1] == "plan, from the cache"


@pytest.mark.slow
def test_the_model_benchmark_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.json"
    assert main(["model", "--batch-size", "1", "--rounds", "1", "--no-compiled", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    figures = json.loads(file.read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert {"birder fp32", "birder bf16 autocast", "trapline fp32"} <= set(rows)
    assert rows["trapline fp32"]["max_probability_error"] < 1e-4
    assert all(name.split()[0] in printed for name in rows)
    assert figures["machine"]["cores"] >= 1


def test_a_folder_without_photographs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    assert main(["decode", str(tmp_path)]) == 2
    assert "holds no image that can be decoded" in capsys.readouterr().err
