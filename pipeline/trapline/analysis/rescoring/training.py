"""What labels teach: a head, a temperature, and figures for both from cameras that neither was learned from.

The temperature of a new head is fitted on predictions for cameras that the head, or that fold of its cross-validation,
has not seen: of those it has learned from it is too sure, and would be called too modest.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trapline.analysis.dataset import Results
from trapline.analysis.rescoring import artifacts, calibration, head, labels
from trapline.analysis.rescoring.artifacts import Learned
from trapline.analysis.rescoring.evaluation import (
    confusion_png,
    judge,
    judgement_json,
    reliability_json,
    reliability_png,
)
from trapline.analysis.rescoring.head import Fit, Head
from trapline.analysis.rescoring.labels import Examples
from trapline.errors import UsageError

# Raise it when the same labels would teach something else.
_METHOD = 2


@dataclass(frozen=True)
class Lesson:
    """What is to be learned from.

    Attributes:
        labels: a CSV file, to fit a head on; None for none.
        calibrate: a CSV file, to fit a temperature on; None for none.
        head: one that is there already; excludes `labels`.
        temperature: one that is there already; excludes `calibrate`.
        holdout: whether some cameras are kept, to judge by.
    """

    labels: str | None = None
    calibrate: str | None = None
    head: Head | None = None
    temperature: float | None = None
    holdout: bool = True


def learn(lesson: Lesson, results: Results, output: str) -> Learned:
    """Learn from labels, or take what an earlier run has learned from the same.

    Fitting need not give the same last bit on another machine, and would then give rows of another kind.

    Raises:
        UsageError: the labels cannot teach that; the message says why.
        StorageError, TransientError: the store refuses, or does not answer.
    """
    vector = "embedding" if lesson.labels or lesson.head else "probabilities"
    taught = labels.join(labels.read(lesson.labels), results, vector) if lesson.labels else None
    tested = None
    if lesson.calibrate:
        same = lesson.calibrate == lesson.labels
        tested = taught if same else labels.join(labels.read(lesson.calibrate), results, vector)
    if taught is None and tested is None:
        return _given(lesson, output)
    examples = [part.digest if part else None for part in (taught, tested)]
    given = lesson.head.digest if lesson.head else None
    source = [_METHOD, results.fingerprint.digest, examples, given, lesson.temperature, lesson.holdout]
    mark = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    return artifacts.earlier(output, mark) or _Course(lesson, results, taught, tested, mark).take()


def _given(lesson: Lesson, output: str) -> Learned:
    """Where there is nothing to learn; what OUTPUT's report says of the same head stays true."""
    temperature = lesson.temperature or (lesson.head.temperature if lesson.head else None)
    known = replace(lesson.head, temperature=temperature) if lesson.head else None
    report = artifacts.read_report(output)
    if not known or (report.get("head_sha256"), report.get("temperature")) != (known.digest, temperature):
        report = {"temperature": temperature, "head_sha256": known.digest if known else None}
    return Learned(known, temperature, report, anew=False)


class _Course:
    """One lesson, as it is taken; remarks and pictures gather on the way."""

    def __init__(
        self, lesson: Lesson, results: Results, taught: Examples | None, tested: Examples | None, mark: str
    ) -> None:
        self.lesson, self.results, self.mark = lesson, results, mark
        self.remarks: list[str] = []
        self.pictures: dict[str, bytes] = {}
        self.classes = self._classes(taught)
        if taught:
            self._remark_on(str(lesson.labels), taught)
        if tested and tested is not taught:
            self._remark_on(str(lesson.calibrate), tested)
        self.taught = taught
        self.tested = self._known(tested) if tested else None
        self.held_out = self._held_out() if lesson.holdout else set()

    def take(self) -> Learned:
        """Fit, judge, report."""
        report: dict[str, Any] = {
            "learned_from": self.mark,
            "labels": self.lesson.labels,
            "calibrate": self.lesson.calibrate,
            "held_out_cameras": sorted(self.held_out),
        }
        fit, known = None, self.lesson.head
        if self.taught:
            part = self.taught.where(~self._is_held_out(self.taught))
            fit = head.fit(part.vectors, list(part.species), list(part.cameras), self.results.fingerprint)
            known = fit.head
            report["head"] = self._head_json(fit, part)
        temperature = self.lesson.temperature or (known.temperature if known else None)
        if self.tested:
            temperature, report["calibration"] = self._calibrate(fit, known, self.tested)
        judged = self.taught or self.tested
        if self.lesson.holdout and judged:
            report["held_out"] = self._judge(known, judged.where(self._is_held_out(judged)))
        if known:
            known = replace(known, temperature=temperature)
            report["head_sha256"] = known.digest
        report |= {"temperature": temperature, "remarks": self.remarks, "pictures": sorted(self.pictures)}
        return Learned(known, temperature, report, tuple(self.remarks), self.pictures)

    def _classes(self, taught: Examples | None) -> tuple[str, ...]:
        if taught:
            return tuple(sorted(set(taught.species)))
        return self.lesson.head.classes if self.lesson.head else self.results.classes

    def _known(self, tested: Examples) -> Examples:
        """The examples of species that what scores them can name, from cameras that a given head has not seen."""
        known = np.isin(tested.species.astype(str), self.classes)
        if not known.all():
            strange = sorted(set(tested.species[~known]))
            self.remarks.append(
                f"{self.lesson.calibrate}: {np.count_nonzero(~known):,} labels are of {len(strange):,} species that "
                f"what scores the images cannot name, such as {strange[0]!r}; not used"
            )
        seen = set(self.lesson.head.cameras) if self.lesson.head else set()
        fresh = np.array([camera not in seen for camera in tested.cameras], bool)
        if not fresh.all():
            self.remarks.append(
                f"{self.lesson.calibrate}: {np.count_nonzero(~fresh):,} labels are of cameras that the head has "
                "learned from; not used"
            )
        if not (known & fresh).any():
            raise UsageError(
                f"{self.lesson.calibrate}: no label is left to calibrate with ({np.count_nonzero(~known):,} are of "
                f"unknown species, {np.count_nonzero(~fresh):,} of cameras that the head has learned from)"
            )
        return tested.where(known & fresh)

    def _remark_on(self, url: str, part: Examples) -> None:
        missing = part.given - len(part) - part.unusable - part.repeated
        for count, what in (
            (missing, f"of {part.given:,} labels match no row"),
            (part.unusable, "labels are of failed images"),
            (part.repeated, "labels are of pictures that an earlier label names already"),
        ):
            if count:
                self.remarks.append(f"{url}: {count:,} {what}; not used")

    def _held_out(self) -> set[str]:
        """Of the cameras that a head is learned from, and of those that are there for the temperature only."""
        chosen: set[str] = set()
        own: set[str] = set()
        if self.taught:
            own = set(self.taught.cameras)
            chosen |= labels.held_out(list(self.taught.cameras), list(self.taught.species))
        if self.tested:
            chosen |= labels.held_out([camera for camera in self.tested.cameras if camera not in own])
        judged = self.taught or self.tested
        if judged and not self._of(judged, chosen).any():
            cameras = sorted(set(judged.cameras))
            why = (
                f"all labelled images are of one camera, {cameras[0]}"
                if len(cameras) == 1
                else f"each of the {len(cameras)} labelled cameras alone has some species"
            )
            raise UsageError(
                f"{self.lesson.labels or self.lesson.calibrate}: {why}, so that none can be held out to judge by; "
                "label more cameras, name them in a column 'camera', or go on unjudged with --no-holdout"
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
                "the head's penalty could not be chosen between cameras, for want of a second; taken: 100"
            )
        if not fit.converged:
            self.remarks.append("the head's fit was stopped before it came to its end; its figures hold all the same")
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
        away = self._is_held_out(tested)
        learn, judge_by = usable & ~away, usable & away
        if not learn.any():
            raise UsageError(
                f"{self.lesson.calibrate}: no label is left to calibrate with beside the cameras that are held out and "
                "those that the head has learned from; label more cameras"
            )
        temperature = calibration.fit_temperature(values[learn], truth[learn])
        if not calibration.BOUNDS[0] * 1.01 < temperature < calibration.BOUNDS[1] * 0.99:
            self.remarks.append(f"the temperature {temperature:g} is at its bound: these labels do not tell one")
        found: dict[str, Any] = {
            "temperature": temperature,
            "images": int(learn.sum()),
            "cameras": len(set(tested.cameras[learn])),
            "bins": f"{calibration.BINS} of equal width",
        }
        if judge_by.any():
            before = calibration.reliability(values[judge_by], truth[judge_by])
            after = calibration.reliability(values[judge_by], truth[judge_by], temperature)
            found |= {"before": reliability_json(before), "after": reliability_json(after)}
            title = f"{judge_by.sum():,} images of {len(set(tested.cameras[judge_by]))} cameras that were held out"
            self.pictures["reliability.png"] = reliability_png(before, after, temperature, title)
        elif self.lesson.holdout:
            self.remarks.append(f"{self.lesson.calibrate}: no label is of a camera that is held out; ECE is unknown")
        return temperature, found

    @staticmethod
    def _logits(
        fit: Fit | None, known: Head | None, part: Examples
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Logits of examples, and which of them are predictions rather than memories."""
        if fit:
            return fit.unseen_logits(part.vectors, list(part.cameras))
        values = known.logits(part.vectors) if known else calibration.logits(part.vectors)
        return values, np.ones(len(part), bool)

    def _judge(self, known: Head | None, part: Examples) -> dict[str, Any]:
        values = known.logits(part.vectors) if known else part.vectors
        predicted = np.array(self.classes, dtype=object)[values.argmax(axis=1)]
        judgement = judge(list(part.species), list(predicted))
        cameras = len(set(part.cameras))
        title = f"{len(part):,} images of {cameras} cameras that were held out: {judgement.accuracy:.1%} right"
        self.pictures["confusion.png"] = confusion_png(judgement, title)
        return {"cameras": cameras, **judgement_json(judgement)}
