"""The head, report and charts that a training leaves in the side folder of OUTPUT."""

import json
from dataclasses import dataclass, field
from typing import Any

from trapline.analysis.rescoring import head
from trapline.analysis.rescoring.head import Head
from trapline.errors import StorageError, UsageError
from trapline.results import layout
from trapline.results.fingerprint import Fingerprint
from trapline.storage import store

HEAD_FILE = "head.safetensors"
REPORT_FILE = "rescore.json"


@dataclass(frozen=True)
class Learned:
    """A head and a temperature, with their evaluation.

    Attributes:
        head: None if the stored probabilities are used.
        temperature: None if there is none to apply.
        report: figures, as JSON.
        remarks: warnings for the user, a line each.
        pictures: PNG files by name.
        refit: False where it was given, or an earlier run had trained it.
    """

    head: Head | None = None
    temperature: float | None = None
    report: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False)
    refit: bool = True


def side_files(learned: Learned, fingerprint: Fingerprint) -> dict[str, bytes]:
    """Return the files to write below `_trapline/`, by name; the report last, since it vouches for the head."""
    files = dict(learned.pictures)
    if learned.head:
        files[HEAD_FILE] = learned.head.to_bytes()
    report = {**learned.report, "fingerprint": dict(fingerprint.facts), "fingerprint_sha256": fingerprint.digest}
    files[REPORT_FILE] = json.dumps(report, indent=1, ensure_ascii=False).encode()
    return files


def load_earlier(output: str, source: str) -> Learned | None:
    """Return what an earlier run into OUTPUT trained on the same; None if there is none, or it was changed.

    Args:
        output: of the earlier run.
        source: digest of labels and options.
    """
    report = read_report(output)
    if report.get("learned_from") != source:
        return None
    known = None
    if "head_sha256" in report:
        try:
            known = head.load(layout.side_file(output, HEAD_FILE))
        except (StorageError, UsageError):
            return None
        if (known.digest, known.temperature) != (report["head_sha256"], report["temperature"]):
            return None
    return Learned(known, report["temperature"], report, tuple(report["remarks"]), refit=False)


def read_report(output: str) -> dict[str, Any]:
    """Return the report in OUTPUT; empty where there is none that can be read."""
    try:
        report = json.loads(store.read_text(layout.side_file(output, REPORT_FILE)))
    except (StorageError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
