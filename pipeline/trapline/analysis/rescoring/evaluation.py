"""Evaluate a classifier on cameras that it was not trained on: accuracy and calibration, as figures and charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import vl_convert
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from trapline.analysis.rescoring.calibration import BINS, Reliability
from trapline.display_text import drawable

# More rows than this cannot be read in one chart; the report's table has all.
_SHOWN = 40
# Numbers fit into the cells of so many.
_NUMBERED = 20


@dataclass(frozen=True)
class Evaluation:
    """Labels against predictions.

    Attributes:
        species: S names, all that were labelled or predicted.
        precision: float [S]; nan for a species that was never predicted.
        recall: float [S]; nan for a species without labels.
        images: int [S], by label.
        confusion: int [S, S], images by label and prediction.
    """

    species: tuple[str, ...]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Return the share of images whose prediction is their label."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def mean_recall(self) -> float:
        """Return the mean of the recalls of all labelled species (balanced accuracy)."""
        return float(np.nanmean(self.recall))


def evaluate(labelled: Sequence[str], predicted: Sequence[str]) -> Evaluation:
    """Compare labels with predictions, of at least one image."""
    species = sorted({*labelled, *predicted})
    precision, recall, _, images = precision_recall_fscore_support(
        labelled, predicted, labels=species, zero_division=np.nan
    )
    confusion = confusion_matrix(labelled, predicted, labels=species)
    return Evaluation(tuple(species), precision, recall, images, confusion)


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the JSON of the report; a figure that is not defined is null."""
    rows = zip(evaluation.species, evaluation.precision, evaluation.recall, evaluation.images, strict=True)
    return {
        "images": int(evaluation.images.sum()),
        "accuracy": evaluation.accuracy,
        "mean_recall": evaluation.mean_recall,
        "species": {
            name: {"images": int(images), "precision": _defined(precision), "recall": _defined(recall)}
            for name, precision, recall, images in rows
        },
        "confusion": {"species": list(evaluation.species), "labelled_by_predicted": evaluation.confusion.tolist()},
    }


def reliability_json(found: Reliability) -> dict[str, Any]:
    """Return the JSON of the report, with the bins of equal width that hold images."""
    bins = [
        {
            "above": index / BINS,
            "to": (index + 1) / BINS,
            "images": int(found.images[index]),
            "confidence": float(found.confidence[index]),
            "accuracy": float(found.accuracy[index]),
        }
        for index in np.flatnonzero(found.images)
    ]
    return {"ece": found.ece, "nll": found.nll, "images": int(found.images.sum()), "bins": bins}


def confusion_png(evaluation: Evaluation, title: str) -> bytes:
    """Draw labels in rows and predictions in columns, shaded by the share of the row, for the commonest species."""
    seen = evaluation.confusion.sum(axis=0) + evaluation.confusion.sum(axis=1)
    shown = np.sort(np.argsort(-seen, kind="stable")[:_SHOWN])
    labelled = evaluation.confusion.sum(axis=1)
    names = [evaluation.species[index] for index in shown]
    cells = [
        {
            "labelled": evaluation.species[row],
            "predicted": evaluation.species[column],
            "images": int(evaluation.confusion[row, column]),
            "share": float(evaluation.confusion[row, column] / max(labelled[row], 1)),
        }
        for row in shown
        for column in shown
    ]
    rest = len(evaluation.species) - len(names)
    lines = [title, *([f"{rest} rarer species not shown"] if rest else [])]
    base = alt.Chart(alt.InlineData(values=cells), title=alt.Title(lines)).encode(
        x=alt.X("predicted:N", sort=names, axis=alt.Axis(labelAngle=-90)), y=alt.Y("labelled:N", sort=names)
    )
    shade = alt.Color(
        "share:Q",
        scale=alt.Scale(range=["#f7fbff", "#6baed6", "#08306b"], domain=[0, 0.5, 1]),
        title="share of the label",
    )
    drawing = base.mark_rect().encode(color=shade)
    if len(names) <= _NUMBERED:
        numbers = base.transform_filter("datum.images > 0").mark_text(fontSize=10)
        drawing += numbers.encode(
            text="images:Q", color=alt.condition("datum.share > 0.5", alt.value("white"), alt.value("black"))
        )
    return _png(drawing.properties(width=alt.Step(22), height=alt.Step(22)))


def reliability_png(before: Reliability, after: Reliability, temperature: float, title: str) -> bytes:
    """Draw accuracy by confidence, before and after; below, how many images each bin holds."""
    panels = [_reliability(before, "as it was"), _reliability(after, f"temperature {temperature:g}")]
    return _png(alt.hconcat(*panels, title=title))


def _reliability(found: Reliability, name: str) -> alt.VConcatChart:
    bins = [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "images": int(found.images[index]),
            "accuracy": float(found.accuracy[index]),
            "confidence": float(found.confidence[index]),
        }
        for index in np.flatnonzero(found.images)
    ]
    share = alt.Scale(domain=[0, 1])
    base = alt.Chart(alt.InlineData(values=bins)).encode(
        x=alt.X("low:Q", bin="binned", scale=share, axis=None), x2="high:Q"
    )
    accuracy = base.mark_bar(color="#4c78a8").encode(y=alt.Y("accuracy:Q", scale=share, title="share right"))
    confidence = (
        alt.Chart(alt.InlineData(values=bins))
        .mark_point(filled=True, color="black")
        .encode(x="confidence:Q", y="confidence:Q")
    )
    ideal = (
        alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[4, 4], color="grey")
        .encode(x="x:Q", y="y:Q")
    )
    counts = base.mark_bar(color="grey").encode(
        x=alt.X("low:Q", bin="binned", scale=share, title="top probability (dots: its mean)"), y="images:Q"
    )
    upper = (accuracy + ideal + confidence).properties(title=f"{name}: ECE {found.ece:.1%}", width=330, height=220)
    return alt.vconcat(upper, counts.properties(width=330, height=70))


def _png(drawing: alt.TopLevelMixin) -> bytes:
    png: bytes = vl_convert.vegalite_to_png(drawable(drawing.to_dict()), scale=1.5, allowed_base_urls=[])
    return png


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
