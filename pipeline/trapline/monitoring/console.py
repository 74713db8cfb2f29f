"""Show a run to a person: a progress bar on a terminal, plain lines now and then elsewhere, and a closing summary.

Names from outside are printed as `Text`: rich would take the brackets in a plain string for its markup.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from trapline.display_text import display_text
from trapline.run.manifest import Manifest
from trapline.run.progress import Progress as RunProgress

# Seconds between lines, so that the log of a night stays short.
LINE_EVERY = 30
_TOP_SPECIES = 8
# Shards to name; the manifest has all of them.
_NAMED_SHARDS = 5

_BOUND = {
    "predict": "inference",
    "decode": "decoding",
    "read": "reading from the store",
    "start-up": "start-up",
    "nothing": "nothing",
}


class ConsoleObserver:
    """Show the running totals, as long as the context lasts."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._next_line = monotonic() + LINE_EVERY
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task: TaskID = self._bar.add_task("starting workers", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: RunProgress) -> None:
        """Show the totals, if a line is due."""
        if self.console.is_terminal:
            self._bar.update(
                self._task, description=_line(progress), total=1.0, completed=progress.shards.fraction_done
            )
        elif monotonic() >= self._next_line:
            self._next_line = monotonic() + LINE_EVERY
            line = f"{datetime.now():%H:%M:%S}  {progress.plan.run_id}  {_line(progress)}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Show something that a person should know."""
        self.console.print(Text(display_text(text)), soft_wrap=True)


def _line(progress: RunProgress) -> str:
    tallies, seconds = progress.tallies, progress.seconds_left
    parts = [
        f"{tallies.images_seen:,} images",
        f"{progress.images_per_second:,.1f}/s",
        f"{tallies.failed_seen:,} failed",
        f"{len(progress.shards.committed):,}/{len(progress.plan.todo):,} shards",
    ]
    if seconds is not None:
        parts.append(f"{timedelta(seconds=round(seconds))} left")
    elif not tallies.images_seen:
        parts.append("starting")
    return "  ".join(parts)


def print_plan(console: Console, planned: Manifest, last: Mapping[str, Any] | None) -> None:
    """Print what a dry run found, and how fast the last run was that classified images, from its manifest."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if part := planned.config.get("part"):
        table.add_row("part", part)
    table.add_row("shards", f"{planned.shards_in:,}")
    table.add_row("  done already", f"{planned.shards_already_done:,} ({_images(planned.images_already_done)})")
    table.add_row("  to do", f"{planned.shards_todo:,} ({_bytes(planned.bytes_todo)})")
    if planned.shards_passed_over:
        table.add_row("  skipped", _skipped(planned))
    if planned.ignored:
        table.add_row("ignored files", Text(display_text(_listed(planned.ignored))))
    if last:
        table.add_row("the last run", f"{last['images_per_second']:,.1f} images/s, bound by {_BOUND[last['bound_by']]}")
        table.add_row("  decode workers", _decode_workers(last["decoders_per_predictor"], last["workers"]))
    console.print(table)
    console.print("Dry run: nothing was read, nothing was written.")


def print_summary(console: Console, manifest: Manifest, output: str) -> None:
    """Print the closing tables of a run."""
    total = sum(manifest.images.values())
    if not manifest.shards_committed and not manifest.shards_failed and not manifest.shards_left:
        if not manifest.shards_in:
            console.print(f"Nothing to do: skipped {_skipped(manifest)}.")
            return
        images = _images(manifest.images_already_done)
        one = manifest.shards_in == 1
        shards = f"the only shard ({images}) is" if one else f"all {manifest.shards_in:,} shards ({images}) are"
        console.print(f"Nothing to do: {shards} done.")
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("shards", f"{manifest.shards_committed:,} classified" + _shard_rest(manifest))
    carried = f", {manifest.images_carried_over:,} of them as before" if manifest.images_carried_over else ""
    table.add_row("images", f"{total:,} = {_listed(manifest.images)}{carried}")
    if manifest.clips:
        table.add_row("clips", f"{manifest.clips:,} of these, by {manifest.frames:,} frames")
    if manifest.detections:
        table.add_row("crops", f"{manifest.crops:,}{_boxes_left_out(manifest.detections)}")
    if manifest.reasons:
        table.add_row("troubles", _listed(manifest.reasons))
    if manifest.ignored:
        table.add_row("ignored files", Text(display_text(_listed(manifest.ignored))))
    table.add_row(
        "speed", f"{manifest.images_per_second:,.1f} images/s over {timedelta(seconds=round(manifest.seconds))}"
    )
    table.add_row("bound by", _bound_by(manifest))
    if manifest.decoders_per_predictor:
        table.add_row("decode workers", _decode_workers(manifest.decoders_per_predictor, manifest.workers))
    console.print(table, highlight=False)
    if manifest.species:
        console.print(_species_table(manifest, total))
    if manifest.status == "over_budget":
        console.print("Stopped: more images failed than --max-failed-fraction allows.")
    if manifest.ended_by:
        left = _counted(manifest.shards_left, "shard")
        console.print(
            f"Stopped by {manifest.ended_by}: {left} left for the next night.", highlight=False, soft_wrap=True
        )
    if manifest.results_with_other_fingerprint:
        others = _counted(manifest.results_with_other_fingerprint, "result")
        console.print(f"{others} of shards outside this input, written with different settings, remain in the output.")
    if manifest.detections.get("unmatched"):
        _print_unmatched(console, manifest.detections)
    _print_shards(console, "failed, to be tried again by the next run", manifest.shards_failed)
    _print_shards(console, "broken off, committed as far as they go", manifest.shards_broken)
    console.print(Text(f"rows      {output}/**/*.parquet"), soft_wrap=True)
    console.print(Text(f"manifest  {output}/_trapline/runs/{manifest.run_id}.json"), soft_wrap=True)


def _skipped(manifest: Manifest) -> str:
    return f"{_counted(manifest.shards_passed_over, 'shard')} of the input, by --since, --where and --part"


def _bound_by(manifest: Manifest) -> str:
    if manifest.bound_by == "start-up":
        total = timedelta(seconds=round(manifest.seconds))
        return (
            f"start-up (the first images came after {timedelta(seconds=round(manifest.start_up_seconds))} of {total})"
        )
    busy = ", ".join(f"{kind} workers busy {share:.0%}" for kind, share in manifest.busy.items())
    return f"{_BOUND[manifest.bound_by]} ({busy})"


def _decode_workers(needed: float, workers: Mapping[str, int]) -> str:
    """Return how many decode workers a predictor needs, for the choice of machines."""
    return f"per predictor: {needed:.1f} needed, {workers['decode'] / workers['predict']:.1f} used"


def _species_table(manifest: Manifest, total: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title="top species", title_justify="left")
    table.add_column("species")
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    for name, count in list(manifest.species.items())[:_TOP_SPECIES]:
        table.add_row(Text(display_text(name)), f"{count:,}", f"{count / total:.1%}")
    return table


def _shard_rest(manifest: Manifest) -> str:
    rest = {
        "done before": manifest.shards_already_done,
        "failed": len(manifest.shards_failed),
        "left for another run": manifest.shards_left,
    }
    return "".join(f", {count:,} {name}" for name, count in rest.items() if count)


def _boxes_left_out(detections: Mapping[str, Any]) -> str:
    reasons = ("below_threshold", "other_category", "invalid", "without_frame")
    counts = {name.replace("_", " "): detections[name] for name in reasons if name in detections}
    return f" (boxes left out: {_listed(counts)})" if counts else ""


def _print_unmatched(console: Console, detections: Mapping[str, Any]) -> None:
    count = detections["unmatched"]
    console.print(f"{_counted(count, 'detector entry', 'detector entries')} matched no image that was read:")
    for name in detections["examples"]:
        console.print(Text(f"  {display_text(name)}"), soft_wrap=True)
    if count > len(detections["examples"]):
        console.print(f"  … and {count - len(detections['examples']):,} more")


def _print_shards(console: Console, title: str, shards: dict[str, str]) -> None:
    if not shards:
        return
    console.print(f"{_counted(len(shards), 'shard')} {title}:", highlight=False)
    for reason in list(shards.values())[:_NAMED_SHARDS]:
        console.print(Text(f"  {display_text(reason)}"), soft_wrap=True)
    if len(shards) > _NAMED_SHARDS:
        console.print(f"  … and {len(shards) - _NAMED_SHARDS:,} more, in the manifest")


def _images(counts: dict[str, int]) -> str:
    return _counted(sum(counts.values()), "image")


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "0"


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5:  # from there on it would be shown as 1e+03
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"
