"""Decide the precision of a run: the option; else that of the results in OUTPUT; else the best for the processor."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from trapline.choices import Precision
from trapline.model.checkpoint import Model
from trapline.model.precision import Computed, resolve_precision
from trapline.model.rounding import measure_bound
from trapline.results import footer
from trapline.results.ledger import Result


def choose_precision(
    asked: Precision, model: Model, device: Literal["cpu", "cuda"], results: Sequence[Result]
) -> tuple[Computed, float | None]:
    """Return the precision of a run, and the bound of `checked`.

    Both are part of the fingerprint, so they must be the same for all workers and all nights, on any processor. They
    are decided here, once for all workers. If OUTPUT has results of the same model, `auto` is their precision, and
    `checked` takes the bound that was measured for them.

    Args:
        asked: the option `--precision`.
        model: the loaded checkpoint.
        device: where inference runs.
        results: what OUTPUT holds.

    Raises:
        UsageError: see `resolve_precision`.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    before = [facts for facts in _facts(results) if _same_model(facts, model)] if asked in ("auto", "checked") else []
    if asked == "checked":
        before = [facts for facts in before if facts["precision"] == "checked"]
    for facts in before:
        if facts["precision"] == "checked" and "checked_bound" in facts:
            return "checked", float(facts["checked_bound"])
        if facts["precision"] in ("fp32", "bf16"):
            return facts["precision"], None
    precision = resolve_precision(asked, device, model, archive=True)
    return precision, measure_bound(model) if precision == "checked" else None


def _facts(results: Iterable[Result]) -> Iterable[dict[str, Any]]:
    """Yield the facts of the fingerprints of OUTPUT's results, the most frequent first."""
    counts = Counter(result.fingerprint for result in results if result.fingerprint)
    example = {result.fingerprint: result.url for result in results}
    for digest, _ in counts.most_common():
        if said := footer.find(example[digest]):
            yield dict(said.fingerprint.facts)


def _same_model(facts: dict[str, Any], model: Model) -> bool:
    return (facts.get("weights_sha256"), facts.get("size")) == (model.weights_sha256, list(model.size))
