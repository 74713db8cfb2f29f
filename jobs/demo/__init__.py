"""Run Trapline on an archive of drawn photographs, with a small model that is trained on others.

Existing files are kept, so that a second run finds nothing to do. FOLDER gets `archive/` (the input), `truth.csv`,
`model.pt` and `output/`; `deployments.csv`, `project.yaml` and `species.csv`, as a user would write them; and the
results of the other jobs: `events/`, `rescored/`, `rescored-events/`, `package/` (Camtrap DP) and `report.html`.
"""

import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import duckdb
import torch
from cyclopts import App
from rich.console import Console
from rich.progress import track
from rich.syntax import Syntax
from rich.table import Table

from jobs.demo import study
from jobs.demo.archive import BROKEN, CAMERAS, CLIPS, build_archive
from jobs.demo.drawing.birds import SPECIES
from jobs.demo.model import BATCH, SIZE, draw_examples, new_network, save, train
from trapline.cli import app as trapline
from trapline.cli import classify
from trapline.cli.run_job import run

T = TypeVar("T")

PHOTOGRAPHS = 240
EXAMPLES = 1536
EPOCHS = 5
# No picture of the archive is among the examples. The training's settings were chosen on another archive (seed 7): use
# that to change them.
_ARCHIVE_SEED, _MODEL_SEED = 2026, 1

_ACCURACY = """
    WITH judged AS (
        SELECT t.species, night, r.species AS taken_for, coalesce(r.species = t.species, false) AS correct
        FROM read_csv($truth) t LEFT JOIN read_parquet($output) r ON parse_filename(r.key) = t.name)
    SELECT species, count(*), avg(correct::int), avg(correct::int) FILTER (NOT night), avg(correct::int) FILTER (night),
           mode(taken_for) FILTER (NOT correct)
    FROM judged GROUP BY GROUPING SETS ((species), ()) ORDER BY species NULLS LAST"""

_WHO_LIVES_WHERE = """\
PIVOT (FROM read_parquet('{output}/**/*.parquet', hive_partitioning = true)
       WHERE status != 'failed' AND frame_seconds IS NULL)
ON site USING count(*) GROUP BY species ORDER BY species"""

app = App(name="trapline demo", help=__doc__, version_flags=(), result_action="return_value")


@app.default
def demo(folder: Path = Path("demo")) -> int:
    """Make an archive and a model, classify the one with the other, and look at the result."""
    console = Console(highlight=False)
    archive, model, output = folder / "archive", folder / "model.pt", folder / "output"
    if not archive.exists():
        make_archive(console, archive)
    if not model.exists():
        make_model(console, model)
    console.rule(f"[bold]trapline classify {archive} {output} --model {model}", style="dim")
    code = classify_archive(archive, output, model)
    if code == 0:
        show_accuracy(console, folder / "truth.csv", output)
        show_query(console, output)
        study.write(folder)
        code = next(filter(None, (run_job(console, job) for job in after_the_night(folder))), 0)
    return code


def after_the_night(folder: Path) -> list[list[str]]:
    """Return the commands after `classify`, as a person gives them: up to a package and a report."""
    output, rescored, package, page = (folder / name for name in ("output", "rescored", "package", "report.html"))
    events, rescored_events = folder / "events", folder / "rescored-events"
    where = ["--deployment-from", "site={site}/{camera}/…"]
    periods: list[str | Path] = [*where, "--deployments", folder / study.DEPLOYMENTS]
    described: list[str | Path] = ["--metadata", folder / study.PROJECT, "--timezone", study.TIMEZONE]
    jobs: list[list[str | Path]] = [
        ["events", output, events, *periods],
        ["rescore", output, rescored, "--species", folder / study.SPECIES_LIST],
        ["events", rescored, rescored_events, *periods],
        ["export-camtrapdp", rescored, rescored_events, folder / study.DEPLOYMENTS, package, *described, "--replace"],
        ["report", rescored, page, "--events", rescored_events],
    ]
    return [[str(argument) for argument in job] for job in jobs]


def make_archive(console: Console, archive: Path) -> None:
    """Draw the archive, under another name until it is whole."""
    console.rule("[bold]an archive", style="dim")
    unfinished = archive.with_name("_archive")
    shutil.rmtree(unfinished, ignore_errors=True)
    started = perf_counter()
    with console.status("drawing"):
        build_archive(unfinished, _ARCHIVE_SEED, PHOTOGRAPHS)
        unfinished.rename(archive)
    seconds = perf_counter() - started
    megabytes = sum(file.stat().st_size for file in archive.rglob("*") if file.is_file()) / 1e6
    console.print(
        f"{PHOTOGRAPHS} photographs and {len(CLIPS)} clips of {len(SPECIES)} made-up birds by day and night, "
        f"{megabytes:.0f} MB, drawn in {seconds:.0f} s. One is cut short, and {len(BROKEN)} files only pretend to be "
        "photographs."
    )
    table = _table()
    for camera in CAMERAS:
        table.add_row(f"  site={camera.site}/{camera.name}", "  ".join(camera.files), f"{camera.make} {camera.model}")
    console.print(table, "")


def make_model(console: Console, path: Path) -> None:
    """Train the model on scenes that are not in the archive."""
    console.rule("[bold]a model", style="dim")
    started = perf_counter()
    drawn = list(_progress(console, draw_examples(_MODEL_SEED, EXAMPLES), EXAMPLES, "drawing"))
    images, labels = torch.stack([pixels for pixels, _ in drawn]), torch.tensor([label for _, label in drawn])
    drawing = perf_counter() - started
    network = new_network(images, _MODEL_SEED)
    steps = train(network, images, labels, EPOCHS, _MODEL_SEED)
    losses = list(_progress(console, steps, EPOCHS * EXAMPLES // BATCH, "training"))
    save(network, path)
    training = perf_counter() - started - drawing
    parameters = sum(weight.numel() for weight in network.parameters()) / 1e6
    console.print(
        f"A Hiera of {parameters:.1f} M parameters, {SIZE[0]} by {SIZE[1]} pixels: {EXAMPLES} other pictures drawn in "
        f"{drawing:.0f} s, {EPOCHS} passes over them in {training:.0f} s, loss {losses[0]:.2f} → {losses[-1]:.2f}.\n"
    )


def classify_archive(archive: Path, output: Path, model: Path) -> int:
    """Run the classify job as its command line does; return its exit code."""
    return classify.main([str(archive), str(output), "--model", str(model)])


def show_accuracy(console: Console, truth: Path, output: Path) -> None:
    """Compare the rows with the truth; a photograph without a row would count as wrong."""
    console.rule("[bold]was it right?", style="dim")
    places = {"truth": str(truth), "output": f"{output}/**/*.parquet"}
    table = _table("species", "photographs", "right", "by day", "by night", "if not, taken for")
    *by_species, (_, *everything, _) = duckdb.execute(_ACCURACY, places).fetchall()
    for species, *figures, taken_for in by_species:
        table.add_row(species, *_shares(*figures), taken_for)
    table.add_row("all", *_shares(*everything), style="bold")
    console.print(table, "")


def show_query(console: Console, output: Path) -> None:
    """Print who lives where: Hive partitions in the input's path are columns of the output."""
    console.rule("[bold]who lives where?", style="dim")
    query = _WHO_LIVES_WHERE.format(output=output)
    console.print(Syntax(query, "sql", theme="ansi_dark", background_color="default"), "")
    answer = duckdb.execute(query)
    table = _table(*(column for column, *_ in answer.description))
    for row in answer.fetchall():
        table.add_row(*map(str, row))
    console.print(table)


def run_job(console: Console, arguments: list[str]) -> int:
    """Run a job as the command line does; return the exit code."""
    console.print()
    console.rule(f"[bold]trapline {shlex.join(arguments)}", style="dim")
    return trapline.main(arguments)


def _shares(images: int, *shares: float | None) -> list[str]:
    return [f"{images}", *("–" if share is None else f"{share:.0%}" for share in shares)]


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=bool(headings), header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in (0, 5) else "right")
    return table


def _progress(console: Console, steps: Iterable[T], total: int, description: str) -> Iterable[T]:
    return track(steps, description, total, console=console, transient=True, disable=not console.is_terminal)


def main(arguments: Sequence[str]) -> int:
    """Run the demo; return the exit code."""
    return run(app, arguments)
