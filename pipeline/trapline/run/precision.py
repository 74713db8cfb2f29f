"""In which precision a run computes: as asked for; else as OUTPUT's results were; else as the processor is best at."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from trapline.config import Precision
from trapline.model.checkpoint import Model
from trapline.model.precision import Computed, resolve_precision
from trapline.model.rounding import measure_bound
from trapline.results import footer
from trapline.results.ledger import Result


def settle(
    asked: Precision, model: Model, device: Literal["cpu", "cuda"], results: Sequence[Result]
) -> tuple[Computed, float | None]:
    """Return the precision of a run, and the bound of `checked`.

    Both are part of the fingerprint, so all workers and all nights must have the same, on whatever processors. They
    are decided here, once for all workers; and where OUTPUT has results of the same model, `auto` is their precision,
    and `checked` takes the bound that was measured for them.

    Args:
        asked: by the user.
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
    """Yield what the fingerprints say that OUTPUT's results have, the most frequent first."""
    counts = Counter(result.fingerprint for result in results if result.fingerprint)
    example = {result.fingerprint: result.url for result in results}
    for digest, _ in counts.most_common():
        if said := footer.find(example[digest]):
            yield dict(said.fingerprint.facts)


def _same_model(facts: dict[str, Any], model: Model) -> bool:
    return (facts.get("weights_sha256"), facts.get("size")) == (model.weights_sha256, list(model.size))
