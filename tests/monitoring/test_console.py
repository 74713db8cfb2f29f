import io
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from tests.support.progress import chunk, failure, footer, run_progress, stopped_clock
from trapline.monitoring import console
from trapline.monitoring.console import ConsoleObserver, print_plan, print_summary
from trapline.run import progress, worker_time
from trapline.run.manifest import Manifest
from trapline.run.worker_time import WorkerCounts


class Screen(Console):
    """What would be seen, kept."""

    def __init__(self, width: int = 100, **options: Any) -> None:
        super().__init__(file=io.StringIO(), width=width, color_system=None, **options)

    @property
    def text(self) -> str:
        text: str = self.file.getvalue()  # type: ignore[attr-defined]
        return text

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.splitlines()]


def ended(committed: int = 3, failed: int = 0, broken: int = 0, done: int = 0, left: int = 0) -> Manifest:
    """The manifest of a run that was at work for a minute and a half."""
    run = run_progress(todo=committed + failed, done=done, left=left)
    run.workers.set_workers(WorkerCounts(3, 1))
    for number, each in enumerate(run.plan.todo):
        run.record_chunk(chunk(each, ok=5, read=1, decode=80, predict=20))
        if number < committed:
            run.commit(footer(each, broken=f"{each.uri}: cut" if number < broken else None))
        else:
            run.fail(failure(each))
    return replace(
        run.manifest(run.verdict),
        seconds=90.2,
        images_per_second=1234.56,
        busy={"decode": 0.9, "predict": 0.7},
        bound_by="decode",
    )


def summary(result: Manifest, **options: Any) -> Screen:
    screen = Screen(**options)
    print_summary(screen, result, "s3://b/results")
    return screen


class TestWatchInALog:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Sets the time, in seconds, for the account and for the watch."""
        return stopped_clock(monkeypatch, progress, worker_time, console)

    def test_one_plain_line_is_written_every_thirty_seconds(self, clock: Callable[[float], None]) -> None:
        screen, run = Screen(), run_progress(todo=20)
        with ConsoleObserver(screen) as watch:
            run.workers.set_workers(WorkerCounts(1, 1))
            written = []
            for second in range(121):
                clock(second)
                run.record_chunk(chunk(run.plan.todo[second // 10], ok=9, failed=1, encoded_bytes=100))
                before = len(screen.lines)
                watch(run)
                watch(run)
                written += [second] * (len(screen.lines) - before)
        assert written == [30, 60, 90, 120]
        assert "\x1b" not in screen.text
        totals = "310 images  10.3/s  31 failed  0/20 shards  0:02:49 left"
        assert screen.lines[0][8:] == f"  {run.plan.run_id}  {totals}"

    def test_a_run_of_half_a_minute_is_left_to_its_summary(self, clock: Callable[[float], None]) -> None:
        screen, run = Screen(), run_progress()
        with ConsoleObserver(screen) as watch:
            clock(29.9)
            watch(run)
        assert screen.text == ""

    def test_a_silence_is_not_made_up_for(self, clock: Callable[[float], None]) -> None:
        screen, run = Screen(), run_progress()
        with ConsoleObserver(screen) as watch:
            for second in (300, 301, 329):
                clock(second)
                watch(run)
        assert len(screen.lines) == 1

    def test_no_time_is_made_up_from_the_first_images(self, clock: Callable[[float], None]) -> None:
        screen, run = Screen(), run_progress(todo=20)
        with ConsoleObserver(screen) as observer:
            run.workers.set_workers(WorkerCounts(1, 1))
            for second in (31, 61):
                clock(second)
                run.record_chunk(chunk(run.plan.todo[0], ok=1, encoded_bytes=500))
                observer(run)
        assert screen.lines[0].endswith("1 images  0.0/s  0 failed  0/20 shards")
        assert screen.lines[1].endswith("2 images  0.0/s  0 failed  0/20 shards  0:19:00 left")

    def test_before_the_first_image_no_time_is_made_up(self, clock: Callable[[float], None]) -> None:
        screen, run = Screen(), run_progress()
        with ConsoleObserver(screen) as watch:
            run.workers.set_workers(WorkerCounts(1, 1))
            clock(31)
            watch(run)
        assert screen.lines[0][8:] == f"  {run.plan.run_id}  0 images  0.0/s  0 failed  0/4 shards  starting"


def test_on_a_terminal_a_bar_shows_the_totals_and_goes() -> None:
    screen, run = Screen(force_terminal=True), run_progress(todo=2)
    with ConsoleObserver(screen) as watch:
        run.record_chunk(chunk(run.plan.todo[0], ok=1200, failed=3, encoded_bytes=500))
        run.commit(footer(run.plan.todo[0]))
        watch(run)
        watch._bar.refresh()
    assert "starting workers" in screen.text
    assert "1,203 images" in screen.text
    assert "3 failed  1/2 shards" in screen.text
    assert "50 %" in screen.text
    assert screen.text.endswith("\x1b[1A\x1b[2K")  # up and wiped


class TestSummary:
    def test_of_a_run_that_was_mostly_start_up_says_so(self) -> None:
        short = replace(ended(), seconds=9.4, start_up_seconds=6.1, bound_by="start-up")
        assert "bound by        start-up (the first images came after 0:00:06 of 0:00:09)" in summary(short).lines

    def test_of_a_complete_run_has_its_totals(self) -> None:
        screen = summary(ended())
        assert screen.lines == [
            "shards          3 classified",
            "images          15 = 9 ok, 3 salvaged, 3 failed",
            "troubles        3 truncated, 3 empty",
            "ignored files   3 .mp4, 2 Thumbs.db",
            "speed           1,234.6 images/s over 0:01:30",
            "bound by        decoding (decode workers busy 90%, predict workers busy 70%)",
            # 1 s of reading and 80 of decoding for 20 of prediction.
            "decode workers  per predictor: 4.0 needed, 3.0 used",
            "top species",
            "species  images  share",
            "owl          12  80.0%",
            "rows      s3://b/results/**/*.parquet",
            screen.lines[-1],
        ]
        assert screen.lines[-1].startswith("manifest  s3://b/results/_trapline/runs/")
        assert "\x1b" not in screen.text

    def test_without_trouble_has_no_line_for_it(self) -> None:
        images = {"ok": 3, "salvaged": 0, "failed": 0}
        screen = summary(replace(ended(), reasons={}, ignored={}, species={}, images=images))
        assert "images          3 = 3 ok" in screen.lines
        assert not any(word in screen.text for word in ("troubles", "ignored", "species", "failed"))

    @pytest.mark.parametrize(
        ("done", "line"),
        [
            (1, "Nothing to do: the only shard (5 images) is done."),
            (2, "Nothing to do: all 2 shards (10 images) are done."),
        ],
    )
    def test_of_a_run_with_nothing_to_do_is_one_line(self, done: int, line: str) -> None:
        assert summary(run_progress(todo=0, done=done).manifest("complete")).lines == [line]

    @pytest.mark.parametrize(
        ("count", "title"),
        [
            (1, "1 shard failed, to be tried again by the next run:"),
            (2, "2 shards failed, to be tried again by the next run:"),
        ],
    )
    def test_names_the_shards_that_failed(self, count: int, title: str) -> None:
        screen = summary(ended(committed=1, failed=count, done=1, left=4))
        assert screen.lines[0] == f"shards          1 classified, 1 done before, {count} failed, 4 left for another run"
        start = screen.lines.index(title)
        assert screen.lines[start + 1 : start + 1 + count] == [f"  s3://b/{2 + n:02}.tar: busy" for n in range(count)]

    def test_is_there_also_when_no_shard_could_be_read(self) -> None:
        assert "  s3://b/00.tar: busy" in summary(ended(committed=0, failed=1)).lines

    def test_names_the_shards_that_broke_off_and_cuts_a_long_list(self) -> None:
        screen = summary(ended(committed=9, broken=8))
        start = screen.lines.index("8 shards broken off, committed as far as they go:")
        assert screen.lines[start + 1 : start + 7] == [
            *(f"  s3://b/{number:02}.tar: cut" for number in range(5)),
            "  … and 3 more, in the manifest",
        ]

    def test_shows_the_most_frequent_species_only(self) -> None:
        species = {f"species {number}": 100 - number for number in range(20)}
        lines = summary(replace(ended(), species=species)).lines
        assert [line.split()[:2] for line in lines if line.startswith("species ")] == [
            ["species", "images"],
            *(["species", str(number)] for number in range(8)),
        ]

    def test_prints_names_as_they_are(self) -> None:
        # rich would take [juv] for a style and :b: for a letter in a box, and stumble over [/2024].
        names = {"Parus major [juv]": 2, "Larus :b: [/2024]": 1}
        reason = "s3://b/[old]/x[/2024]/:b:.tar: [Errno 5] cut"
        result = replace(ended(failed=1), species=names, ignored={".x[bold]": 1}, shards_failed={"x": reason})
        screen = Screen()
        print_summary(screen, result, "s3://b/[new]")
        for text in (*names, reason, "1 .x[bold]", "s3://b/[new]/**/*.parquet", "s3://b/[new]/_trapline"):
            assert text in screen.text

    def test_prints_no_character_that_steers_the_terminal(self) -> None:
        result = replace(ended(failed=1), species={"a\x1b[2J": 2}, shards_failed={"x": "b\x1b]0;title\x07.tar"})
        screen = Screen()
        print_summary(screen, result, "out")
        assert "\x1b" not in screen.text
        assert "a\\x1b[2J" in screen.text

    def test_fits_a_narrow_terminal(self) -> None:
        assert max(map(len, summary(ended(done=1, left=1), width=80).lines)) <= 80

    def test_never_breaks_a_name_that_somebody_will_copy(self) -> None:
        reason = f"s3://b/{'long/' * 40}0007.tar: busy"
        result = replace(ended(failed=1), shards_failed={"x": reason})
        assert f"  {reason}" in summary(result, width=80).lines


class TestPlan:
    def test_says_what_would_be_done(self) -> None:
        screen = Screen()
        print_plan(screen, run_progress(todo=2, done=1, left=1).manifest("planned"), None)
        assert screen.lines == [
            "shards          4",
            "  done already  1 (5 images)",
            "  to do         2 (2 KB)",
            "ignored files   2 Thumbs.db",
            "Dry run: nothing was read, nothing was written.",
        ]

    def test_names_the_part(self) -> None:
        screen = Screen()
        print_plan(screen, run_progress(todo=2, part="3/8").manifest("planned"), None)
        assert screen.lines[0] == "part            3/8"

    def test_counts_what_is_not_meant(self) -> None:
        screen = Screen()
        print_plan(screen, replace(run_progress(todo=2).manifest("planned"), shards_passed_over=7), None)
        assert "  skipped       7 shards of the input, by --since, --where and --part" in screen.lines

    def test_says_how_the_last_run_fared(self) -> None:
        screen = Screen()
        print_plan(screen, run_progress().manifest("planned"), asdict(ended()))
        assert screen.lines[-3:] == [
            "the last run      1,234.6 images/s, bound by decoding",
            "  decode workers  per predictor: 4.0 needed, 3.0 used",
            "Dry run: nothing was read, nothing was written.",
        ]

    @pytest.mark.parametrize(
        ("size", "shown"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 KB"),
            (999_999, "1 MB"),
            (12_345_678, "12.3 MB"),
            (4.2e9, "4.2 GB"),
            (1e12, "1 TB"),
            (5e15, "5 PB"),
        ],
    )
    def test_gives_sizes_as_people_say_them(self, size: float, shown: str) -> None:
        screen = Screen()
        print_plan(screen, replace(run_progress().manifest("planned"), bytes_todo=int(size)), None)
        assert f"4 ({shown})" in screen.text


class TestWhatAPersonShouldKnow:
    def test_a_note_is_printed_as_it_is(self) -> None:
        screen = Screen()
        ConsoleObserver(screen).note("run [1] is at work")
        assert screen.lines == ["run [1] is at work"]

    def test_a_run_over_its_budget_says_so(self) -> None:
        line = "Stopped: more images failed than --max-failed-fraction allows."
        assert line in summary(replace(ended(), status="over_budget")).lines
        assert line not in summary(ended()).lines

    def test_rows_that_were_taken_over_are_counted(self) -> None:
        assert "of them as before" not in summary(ended()).text
        assert (
            "15 = 9 ok, 3 salvaged, 3 failed, 7 of them as before"
            in summary(replace(ended(), images_carried_over=7)).text
        )

    def test_results_with_other_settings_are_counted(self) -> None:
        line = "2 results of shards outside this input, written with different settings, remain in the output."
        assert line in summary(replace(ended(), results_with_other_fingerprint=2)).lines
        assert line not in summary(ended()).lines
