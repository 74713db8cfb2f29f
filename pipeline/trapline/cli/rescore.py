"""Compute new scores from stored results.

They are computed from embeddings and probabilities, without the images; RESULTS is not changed. In this order, each on
request: a new head, trained on labels or read from a file; a temperature, fitted on labels; a list of species that can
occur; roll-up to genus, family or class. Heads and temperatures are evaluated on cameras that they were not trained on.
OUTPUT gets one file for each file of RESULTS. On the cluster that RAY_ADDRESS names, if it is set, files are processed
in parallel.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from trapline.cli.run_job import command, run
from trapline.display_text import display_text
from trapline.errors import UsageError

if TYPE_CHECKING:
    from trapline.analysis.dataset import Results
    from trapline.analysis.rescoring.artifacts import Learned
    from trapline.analysis.rescoring.scorer import Scorer
    from trapline.analysis.rescoring.species_list import SpeciesList
    from trapline.analysis.rescoring.taxonomy import Taxonomy
    from trapline.results.fingerprint import Fingerprint
    from trapline.results.ledger import Plan

EXIT_INCOMPLETE = 3
# A screenful.
_SHOWN = 20
_TOP_SPECIES = 8
_NAMED = 5
# Below and above, float32 has no probabilities but 0 and 1, or none that differ.
_COLDEST, _HOTTEST = 0.001, 1000
# Species to list if the results do not say how many they list.
_TOP_K = 5

app = command("rescore", __doc__, {EXIT_INCOMPLETE: "some files failed; the next run tries them again."})


@app.default
def rescore_(
    results_: Annotated[str, Parameter(name="RESULTS", help="OUTPUT of classify or rescore; path or URL.")],
    output: Annotated[str, Parameter(name="OUTPUT", help="A separate folder for the new results; path or URL.")],
    /,
    *,
    labels: Annotated[
        str | None,
        Parameter(
            help="Train a new head on this CSV: species, image_uri or content_sha256 (hex), and optionally camera."
        ),
    ] = None,
    head_: Annotated[
        str | None,
        Parameter(
            name="--head", help="Apply the head that an earlier run wrote to its OUTPUT/_trapline/head.safetensors."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        Parameter(help="Fit a temperature on this CSV, with the columns of --labels; may be the same file."),
    ] = None,
    temperature: Annotated[float | None, Parameter(help="Temperature to divide logits by.")] = None,
    species: Annotated[
        str | None,
        Parameter(
            help="CSV of species that can occur. With a column deployment (or site), they occur only there: a pattern "
            "of whole segments of image_uri, such as site=12, site=12/cam3 or `cam*`."
        ),
    ] = None,
    taxonomy_: Annotated[
        str | None, Parameter(name="--taxonomy", help="CSV of species, genus, family, class, to roll up by.")
    ] = None,
    threshold: Annotated[
        float, Parameter(help="Probability that a species, or else the taxon above it, must reach in the roll-up.")
    ] = 0.8,
    no_holdout: Annotated[bool, Parameter(help="Train on all labels, without an evaluation.")] = False,
    replace_: Annotated[
        bool, Parameter(name="--replace", help="Overwrite results in OUTPUT that were scored with other options.")
    ] = False,
) -> int:
    """Compute new scores from stored results."""
    from trapline.analysis import dataset, tables
    from trapline.analysis.rescoring import head, rescore, species_list, taxonomy
    from trapline.analysis.rescoring.artifacts import side_files
    from trapline.analysis.rescoring.training import TrainingRequest, train_or_load
    from trapline.results import layout, ledger
    from trapline.results.rows import classes_csv
    from trapline.results.schema import IMAGE_FIELDS
    from trapline.storage import store

    if labels and head_:
        raise UsageError("rescore: --labels fits a head and --head reads one; give one of them")
    if calibrate and temperature is not None:
        raise UsageError("rescore: --calibrate fits a temperature and --temperature gives one; give one of them")
    if temperature is not None and not _COLDEST <= temperature <= _HOTTEST:
        raise UsageError(f"--temperature {temperature}: must be from {_COLDEST} to {_HOTTEST}")
    if not 0 < threshold <= 1:
        raise UsageError(f"--threshold {threshold}: must be above 0 and at most 1")
    if not any((labels, head_, calibrate, temperature, species, taxonomy_)):
        raise UsageError("rescore: nothing to change; give --labels, --head, --calibrate, --species or --taxonomy")
    tables.refuse_nested(results_, output)
    console = Console()
    found = dataset.find(results_)
    # Check all columns that a scorer reads before training anything.
    vector = "embedding" if labels or head_ else "probabilities"
    dataset.require_columns(found, [vector, "precision", *(field.name for field in IMAGE_FIELDS)])
    if labels or calibrate:
        found.refuse_crops("learning from labels of images")
    given = head.load(head_) if head_ else None
    if given:
        given.refuse_other(found.fingerprint, str(head_))
    learned = train_or_load(TrainingRequest(labels, calibrate, given, temperature, not no_holdout), found, output)
    listed = species_list.read(species) if species else None
    tree = taxonomy.read(taxonomy_) if taxonomy_ else None
    scorer = _scorer(found, learned, listed, tree, threshold)
    fingerprint = rescore.fingerprint(found, scorer, listed, tree)
    plan = rescore.plan(found, output, fingerprint, replace_)
    if plan.todo or learned.refit:
        for name, data in {**side_files(learned, fingerprint), "classes.csv": classes_csv(scorer.classes)}.items():
            store.put(layout.side_file(output, name), data)
    ledger.remember(output, plan.results)
    _print_learned(console, learned)
    _print_unmatched_species(console, scorer, listed, tree)
    return _rescore_files(console, plan, scorer, fingerprint, output)


def _scorer(
    found: "Results", learned: "Learned", listed: "SpeciesList | None", tree: "Taxonomy | None", threshold: float
) -> "Scorer":
    from trapline.analysis.rescoring.scorer import Scorer
    from trapline.analysis.rescoring.species_list import Prior
    from trapline.analysis.rescoring.taxonomy import RollUp

    classes = learned.head.classes if learned.head else found.classes
    return Scorer(
        classes=classes,
        top_k=min(found.fingerprint.facts.get("top_k", _TOP_K), len(classes)),
        head=learned.head,
        temperature=learned.temperature,
        prior=Prior.of(listed, classes) if listed else None,
        roll_up=RollUp.of(tree, classes) if tree else None,
        threshold=threshold,
        crops=found.has_crops,
    )


def _rescore_files(console: Console, plan: "Plan", scorer: "Scorer", fingerprint: "Fingerprint", output: str) -> int:
    from trapline.analysis.rescoring import rescore
    from trapline.analysis.rescoring.artifacts import REPORT_FILE
    from trapline.results import layout

    if not plan.todo:
        console.print(f"Nothing to do: all {len(plan.done):,} results are done.", highlight=False)
        return 0
    species, remarks, troubles, images = Counter[str](), Counter[str](), list[str](), 0
    # Deployments of the species list; where a file was done before, it is not known which hold.
    nowhere = set[str]() if plan.done or not scorer.prior else scorer.prior.masks.keys() - {""}
    outcomes = rescore.run(plan.todo, scorer, fingerprint)
    shown = track(outcomes, "scoring", len(plan.todo), console=console, transient=True, disable=not console.is_terminal)
    for outcome in shown:
        images += outcome.images
        species += outcome.species
        remarks += outcome.remarks
        nowhere = set() if outcome.patterns is None else nowhere - outcome.patterns
        if outcome.trouble:
            troubles.append(outcome.trouble)
    written = len(plan.todo) - len(troubles)
    done = f", {len(plan.done):,} done before" if plan.done else ""
    _say(console, f"{images:,} images in {written:,} files rescored{done}")
    for what, count in remarks.most_common():
        _say(console, f"  {count:,} images {what}")
    if nowhere:
        names = _names(sorted(nowhere))
        _say(console, f"note: {len(nowhere):,} deployments of the species list are in no path of an image: {names}")
    for name, count in species.most_common(_TOP_SPECIES):
        _say(console, f"  {count / max(species.total(), 1):6.1%}  {name}")
    for trouble in troubles[:_SHOWN]:
        _say(console, f"failed; the next run tries again: {trouble}")
    if len(troubles) > _SHOWN:
        _say(console, f"… and {len(troubles) - _SHOWN:,} more")
    _say(console, f"rows    {output}/**/*.parquet")
    _say(console, f"report  {layout.side_file(output, REPORT_FILE)}")
    return EXIT_INCOMPLETE if troubles else 0


def _print_learned(console: Console, learned: "Learned") -> None:
    if learned.report.get("learned_from") and not learned.refit:
        _say(console, "Using the head and temperature that an earlier run trained.")
    for remark in learned.remarks:
        _say(console, f"note: {remark}")
    if judged := learned.report.get("held_out"):
        kind = "head" if learned.head else "stored scores"
        _say(
            console,
            f"{kind}: {judged['accuracy']:.1%} right, mean recall {judged['mean_recall']:.1%}, of {judged['images']:,} "
            f"images of {judged['cameras']:,} cameras that were held out",
        )
        console.print(_species_table(judged["species"]))
    if found := learned.report.get("calibration"):
        gain = f"; ECE {found['before']['ece']:.1%} → {found['after']['ece']:.1%}" if "before" in found else ""
        _say(console, f"temperature: {found['temperature']:g}, from {found['images']:,} images{gain}")


def _species_table(species: dict[str, dict[str, float | None]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("species")
    for name in ("images", "precision", "recall"):
        table.add_column(name, justify="right")
    often = sorted(species.items(), key=lambda item: -(item[1]["images"] or 0))
    for name, figures in often[:_SHOWN]:
        shares = ("–" if figures[key] is None else f"{figures[key]:.0%}" for key in ("precision", "recall"))
        table.add_row(Text(display_text(name)), f"{figures['images']:,}", *shares)
    if len(often) > _SHOWN:
        table.add_row(f"… and {len(often) - _SHOWN:,} more, in the report")
    return table


def _print_unmatched_species(
    console: Console, scorer: "Scorer", listed: "SpeciesList | None", tree: "Taxonomy | None"
) -> None:
    if listed and (unknown := listed.unknown(scorer.classes)):
        _say(console, f"note: {listed.url}: {len(unknown):,} species are unknown to the model: {_names(unknown)}")
    if tree and (unplaced := tree.unplaced(scorer.classes)):
        _say(console, f"note: {tree.url}: {len(unplaced):,} species of the model are not placed: {_names(unplaced)}")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _say(console: Console, text: str) -> None:
    # Names come from outside: rich would take brackets in a plain string for its markup.
    console.print(Text(display_text(text)), soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    return run(app, arguments)
