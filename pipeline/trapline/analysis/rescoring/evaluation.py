"""How good a classifier is at cameras that it has not learned from, and how honest: figures, and pictures of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from trapline.analysis.rescoring.calibration import BINS, Reliability

# More rows than this cannot be read in one picture; the table has them all.
_SHOWN = 40
# Numbers fit into the cells of so many.
_NUMBERED = 20


@dataclass(frozen=True)
class Judgement:
    """Labels against predictions.

    Attributes:
        species: S names, all that were labelled or predicted.
        precision: float [S], the share of what is called so that is so; nan where nothing is called so.
        recall: float [S], the share of what is so that is called so; nan where nothing is so.
        images: int [S], labelled so.
        confusion: int [S, S], images by label and prediction.
    """

    species: tuple[str, ...]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]
    confusion: npt.NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """The share of images that is called what it is."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def mean_recall(self) -> float:
        """Recall, each labelled species counting the same (balanced accuracy)."""
        return float(np.nanmean(self.recall))


def judge(labelled: Sequence[str], predicted: Sequence[str]) -> Judgement:
    """Compare; at least one image."""
    species = sorted({*labelled, *predicted})
    precision, recall, _, images = precision_recall_fscore_support(
        labelled, predicted, labels=species, zero_division=np.nan
    )
    confusion = confusion_matrix(labelled, predicted, labels=species)
    return Judgement(tuple(species), precision, recall, images, confusion)


def judgement_json(judgement: Judgement) -> dict[str, Any]:
    """As it stands in the report; a figure that is not defined is null."""
    rows = zip(judgement.species, judgement.precision, judgement.recall, judgement.images, strict=True)
    return {
        "images": int(judgement.images.sum()),
        "accuracy": judgement.accuracy,
        "mean_recall": judgement.mean_recall,
        "species": {
            name: {"images": int(images), "precision": _defined(precision), "recall": _defined(recall)}
            for name, precision, recall, images in rows
        },
        "confusion": {"species": list(judgement.species), "labelled_by_predicted": judgement.confusion.tolist()},
    }


def reliability_json(found: Reliability) -> dict[str, Any]:
    """As it stands in the report, with the bins of equal width that hold images."""
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


def confusion_png(judgement: Judgement, title: str) -> bytes:
    """Labels in rows, predictions in columns, shaded by the share of the row; the species with the most images."""
    seen = judgement.confusion.sum(axis=0) + judgement.confusion.sum(axis=1)
    shown = np.sort(np.argsort(-seen, kind="stable")[:_SHOWN])
    counts = judgement.confusion[np.ix_(shown, shown)]
    shares = counts / np.maximum(judgement.confusion.sum(axis=1)[shown], 1)[:, None]
    names = [judgement.species[index] for index in shown]
    side = 3 + 0.3 * len(names)
    figure = Figure(figsize=(max(side + 1, 7), side), layout="constrained")
    rest = len(judgement.species) - len(names)
    figure.suptitle(title + (f"\n{rest} rarer species not shown" if rest else ""))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the label", shrink=0.8)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="labelled")
    if len(names) <= _NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=8)
    return _png(figure)


def reliability_png(before: Reliability, after: Reliability, temperature: float, title: str) -> bytes:
    """Accuracy by confidence, before and after; below, how many images each bin holds."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(title)
    upper, lower = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    edges = np.arange(BINS) / BINS
    panels = ((before, "as it was"), (after, f"temperature {temperature:g}"))
    for axes, below, (found, name) in zip(upper, lower, panels, strict=True):
        axes.bar(edges, np.nan_to_num(found.accuracy), 1 / BINS, align="edge", edgecolor="white", label="accuracy")
        axes.plot(found.confidence, found.confidence, "o", color="black", markersize=4, label="confidence")
        axes.plot((0, 1), (0, 1), "--", color="grey", linewidth=1)
        axes.set(title=f"{name}: ECE {found.ece:.1%}", xlim=(0, 1), ylim=(0, 1), ylabel="share right")
        below.bar(edges, found.images, 1 / BINS, align="edge", color="grey", edgecolor="white")
        below.set(xlabel="top probability", ylabel="images")
    upper[0].legend(loc="upper left")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=120)
    return sink.getvalue()


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
