"""Train a head and fit a temperature on labels, and evaluate both on cameras that neither was trained on.

The temperature of a new head is fitted on predictions for cameras that the head, or that fold of its cross-validation,
has not seen: a head is overconfident about its training data, and a temperature fitted there would be too high.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trapline.analysis.dataset import Results
from trapline.analysis.rescoring import artifacts, calibration, head, label_file, labels
from trapline.analysis.rescoring.artifacts import Learned
from trapline.analysis.rescoring.evaluation import (
    confusion_png,
    evaluate,
    evaluation_json,
    reliability_json,
    reliability_png,
)
from trapline.analysis.rescoring.head import Fit, Head
from trapline.analysis.rescoring.labels import Examples
from trapline.errors import UsageError

# Raise it when the same labels would give another head or temperature.
_METHOD = 2


@dataclass(frozen=True)
class TrainingRequest:
    """What to fit, and on what.

    Attributes:
        labels: CSV file to train a head on; None for none.
        calibrate: CSV file to fit a temperature on; None for none.
        head: an existing one; excludes `labels`.
        temperature: an existing one; excludes `calibrate`.
        holdout: whether some cameras are held out for evaluation.
    """

    labels: str | None = None
    calibrate: str | None = None
    head: Head | None = None
    temperature: float | None = None
    holdout: bool = True


def train_or_load(request: TrainingRequest, results: Results, output: str) -> Learned:
    """Train on labels, or load what an earlier run trained on the same.

    Another machine may round differently when it trains again; its rows would have another fingerprint.

    Raises:
        UsageError: the labels do not suffice; the message says why.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    vector = "embedding" if request.labels or request.head else "probabilities"
    train = labels.join(label_file.read(request.labels), results, vector) if request.labels else None
    tested = None
    if request.calibrate:
        same = request.calibrate == request.labels
        tested = train if same else labels.join(label_file.read(request.calibrate), results, vector)
    if train is None and tested is None:
        return _given(request, output)
    examples = [part.digest if part else None for part in (train, tested)]
    given = request.head.digest if request.head else None
    inputs = [_METHOD, results.fingerprint.digest, examples, given, request.temperature, request.holdout]
    source = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    return artifacts.load_earlier(output, source) or _Training(request, results, train, tested, source).run()


def _given(request: TrainingRequest, output: str) -> Learned:
    """Return the given head and temperature; OUTPUT's report on the same head stays valid."""
    temperature = request.temperature or (request.head.temperature if request.head else None)
    known = replace(request.head, temperature=temperature) if request.head else None
    report = artifacts.read_report(output)
    if not known or (report.get("head_sha256"), report.get("temperature")) != (known.digest, temperature):
        report = {"temperature": temperature, "head_sha256": known.digest if known else None}
    return Learned(known, temperature, report, refit=False)


class _Training:
    """One training with its evaluation; collects remarks and charts on the way."""

    def __init__(
        self, request: TrainingRequest, results: Results, train: Examples | None, tested: Examples | None, source: str
    ) -> None:
        self.request, self.results, self.source = request, results, source
        self.remarks: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.classes = self._classes(train)
        if train:
            self._remark_on(str(request.labels), train)
        if tested and tested is not train:
            self._remark_on(str(request.calibrate), tested)
        self.train = train
        self.tested = self._known(tested) if tested else None
        self.held_out = self._held_out() if request.holdout else set()

    def run(self) -> Learned:
        """Fit, evaluate and report."""
        report: dict[str, Any] = {
            "learned_from": self.source,
            "labels": self.request.labels,
            "calibrate": self.request.calibrate,
            "held_out_cameras": sorted(self.held_out),
        }
        fit, known = None, self.request.head
        if self.train:
            part = self.train.where(~self._is_held_out(self.train))
            fit = head.fit(part.vectors, list(part.species), list(part.cameras), self.results.fingerprint)
            known = fit.head
            report["head"] = self._head_json(fit, part)
        temperature = self.request.temperature or (known.temperature if known else None)
        if self.tested:
            temperature, report["calibration"] = self._calibrate(fit, known, self.tested)
        evaluated = self.train or self.tested
        if self.request.holdout and evaluated:
            report["held_out"] = self._evaluate(known, evaluated.where(self._is_held_out(evaluated)))
        if known:
            known = replace(known, temperature=temperature)
            report["head_sha256"] = known.digest
        report |= {"temperature": temperature, "remarks": self.remarks, "pictures": sorted(self.pictures)}
        return Learned(known, temperature, report, tuple(self.remarks), self.pictures)

    def _classes(self, train: Examples | None) -> tuple[str, ...]:
        if train:
            return tuple(sorted(set(train.species)))
        return self.request.head.classes if self.request.head else self.results.classes

    def _known(self, tested: Examples) -> Examples:
        """Return the examples of species that the head or model knows, of cameras that a given head has not seen."""
        known = np.isin(tested.species.astype(str), self.classes)
        if not known.all():
            unmatched = sorted(set(tested.species[~known]))
            self.remarks.append(
                f"{self.request.calibrate}: {np.count_nonzero(~known):,} labels are of {len(unmatched):,} species that "
                f"the {'head' if self.request.head else 'model'} does not know, such as {unmatched[0]!r}; not used"
            )
        seen = set(self.request.head.cameras) if self.request.head else set()
        fresh = np.array([camera not in seen for camera in tested.cameras], bool)
        if not fresh.all():
            self.remarks.append(
                f"{self.request.calibrate}: {np.count_nonzero(~fresh):,} labels are of cameras that the head was "
                "trained on; not used"
            )
        if not (known & fresh).any():
            raise UsageError(
                f"{self.request.calibrate}: no label is left to calibrate with ({np.count_nonzero(~known):,} are of "
                f"unknown species, {np.count_nonzero(~fresh):,} of cameras that the head was trained on)"
            )
        return tested.where(known & fresh)

    def _remark_on(self, url: str, part: Examples) -> None:
        missing = part.given - len(part) - part.unusable - part.repeated - part.ambiguous
        for count, what in (
            (missing, f"of {part.given:,} labels match no row"),
            (part.ambiguous, "labels fit several images each (write more of the path)"),
            (part.unusable, "labels are of failed images"),
            (part.repeated, "labels are of pictures that another label names already"),
        ):
            if count:
                self.remarks.append(f"{url}: {count:,} {what}; not used")

    def _held_out(self) -> set[str]:
        """Choose held-out cameras among those of the head's labels, and among those that only the temperature has."""
        chosen: set[str] = set()
        own: set[str] = set()
        if self.train:
            own = set(self.train.cameras)
            chosen |= labels.held_out(list(self.train.cameras), list(self.train.species))
        if self.tested:
            chosen |= labels.held_out([camera for camera in self.tested.cameras if camera not in own])
        evaluated = self.train or self.tested
        if evaluated and not self._of(evaluated, chosen).any():
            cameras = sorted(set(evaluated.cameras))
            why = (
                f"all labelled images are of one camera, {cameras[0]}"
                if len(cameras) == 1
                else f"each of the {len(cameras)} labelled cameras alone has some species"
            )
            raise UsageError(
                f"{self.request.labels or self.request.calibrate}: {why}, so that none can be held out for evaluation; "
                "label more cameras, name them in a column 'camera', or skip the evaluation with --no-holdout"
            )
        return chosen

    def _is_held_out(self, part: Examples) -> npt.NDArray[np.bool_]:
        return self._of(part, self.held_out)

    @staticmethod
    def _of(part: Examples, cameras: set[str]) -> npt.NDArray[np.bool_]:
        return np.array([camera in cameras for camera in part.cameras], bool)

    def _head_json(self, fit: Fit, part: Examples) -> dict[str, Any]:
        if not fit.folds:
            self.remarks.append(
                "all labels to train on are of one camera, so that the head's penalty could not be chosen by "
                "cross-validation; used: 100"
            )
        if not fit.converged:
            self.remarks.append("the head's training stopped before it converged; its evaluation is valid all the same")
        return {
            "classes": len(fit.head.classes),
            "images": len(part),
            "cameras": len(set(part.cameras)),
            "inverse_penalty": fit.strength,
            "cross_validated_nll": fit.log_loss,
        }

    def _calibrate(self, fit: Fit | None, known: Head | None, tested: Examples) -> tuple[float, dict[str, Any]]:
        values, usable = self._logits(fit, known, tested)
        truth = np.array([self.classes.index(name) for name in tested.species])
        usable &= np.isfinite(values[np.arange(len(truth)), truth])
        held_out = self._is_held_out(tested)
        fitted, evaluated = usable & ~held_out, usable & held_out
        if not fitted.any():
            raise UsageError(
                f"{self.request.calibrate}: no label is left to calibrate with beside the held-out cameras and "
                "those that the head was trained on; label more cameras"
            )
        temperature = calibration.fit_temperature(values[fitted], truth[fitted])
        if not calibration.BOUNDS[0] * 1.01 < temperature < calibration.BOUNDS[1] * 0.99:
            self.remarks.append(f"the temperature {temperature:g} is at its bound: these labels do not determine one")
        found: dict[str, Any] = {
            "temperature": temperature,
            "images": int(fitted.sum()),
            "cameras": len(set(tested.cameras[fitted])),
            "bins": f"{calibration.BINS} of equal width",
        }
        if evaluated.any():
            before = calibration.reliability(values[evaluated], truth[evaluated])
            after = calibration.reliability(values[evaluated], truth[evaluated], temperature)
            found |= {"before": reliability_json(before), "after": reliability_json(after)}
            title = f"{evaluated.sum():,} images of {len(set(tested.cameras[evaluated]))} cameras that were held out"
            self.pictures["reliability.png"] = reliability_png(before, after, temperature, title)
        elif self.request.holdout:
            self.remarks.append(
                f"{self.request.calibrate}: no label is of a held-out camera; the calibration error is unknown"
            )
        return temperature, found

    @staticmethod
    def _logits(
        fit: Fit | None, known: Head | None, part: Examples
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return logits of examples, and which of them come from a head that was not trained on their camera."""
        if fit:
            return fit.unseen_logits(part.vectors, list(part.cameras))
        values = known.logits(part.vectors) if known else calibration.logits(part.vectors)
        return values, np.ones(len(part), bool)

    def _evaluate(self, known: Head | None, part: Examples) -> dict[str, Any]:
        values = known.logits(part.vectors) if known else part.vectors
        predicted = np.array(self.classes, dtype=object)[values.argmax(axis=1)]
        found = evaluate(list(part.species), list(predicted))
        cameras = len(set(part.cameras))
        title = f"{len(part):,} images of {cameras} cameras that were held out: {found.accuracy:.1%} right"
        self.pictures["confusion.png"] = confusion_png(found, title)
        return {"cameras": cameras, **evaluation_json(found)}
