"""The manifest of a run: a file that says what the run did."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trapline.config import parse_part
from trapline.errors import StorageError
from trapline.results import layout
from trapline.storage import store
from trapline.storage.store import Entry

Status = Literal["planned", "running", "complete", "stopped", "incomplete", "over_budget", "interrupted", "aborted"]

# How many manifests `latest` reads to find one of a run that had something to do.
_LOOKED_AT = 10
# Manifests that are read at the same time: one request each.
_READS = 16


@dataclass(frozen=True)
class Manifest:
    """What a run did: the content of `OUTPUT/_trapline/runs/RUN_ID.json`.

    `shards_in` = `shards_committed` + `shards_already_done` + `shards_failed` + `shards_left`. `images` counts the
    images of `shards_committed`, and `images_already_done` those of `shards_already_done`.

    Attributes:
        run_id: start time and a few random letters.
        status: planned (a dry run), running, complete, stopped (at the time of `--stop-at`, with shards left),
            incomplete (shards failed, or broke off), over_budget (too many images failed), interrupted (by a signal) or
            aborted (by an error that concerns the whole run).
        ended_by: the error of an aborted run, in one line, or the `--stop-at` that left shards; else None.
        started_at: UTC, ISO 8601.
        seconds: wall time from the first shard handed out to the last commit.
        config: the options, as given.
        fingerprint: what the rows depend on, and its digest.
        versions: of the software that computed them.
        shards_in: shards of the inputs that `--since`, `--where` and `--part` select.
        shards_passed_over: shards of the inputs that they do not select.
        shards_committed: results written by this run.
        shards_already_done: results that existed before, or that another run wrote meanwhile.
        shards_failed: URI -> the reason, in the store's own words.
        shards_left: shards that this run did not get to, because of `--limit`, `--stop-at` or its early end.
        shards_todo: shards that the run set out to classify.
        bytes_todo: size of these shards.
        results_with_other_fingerprint: results in OUTPUT that were computed with different settings and are kept,
            because their shards are not in the inputs.
        shards_broken: URI -> why a committed shard could not be read to its end.
        images: images and clips, one row each, by status: ok, salvaged, failed.
        crops: rows of crops; not part of `images`.
        clips: how many of `images` are clips.
        frames: rows of the frames of clips; not part of `images`.
        detections: what became of the detector's output (`detections.index.Index`): counts, `unmatched` (names without
            an image in the shards that were read) and some `examples` of these; empty without detections.
        images_carried_over: how many of `images` come from the earlier result of a folder that has changed.
        images_already_done: images of the shards that were done already, by status.
        reasons: kinds of error of salvaged and failed images, counted.
        species: the most probable class, counted over the rows of this run.
        ignored: files that were neither shards, images, clips nor sidecars, by suffix.
        step_seconds: worker seconds by step: read, decode, predict.
        start_up_seconds: the part of `seconds` before the first images came back.
        busy: share of the time that each kind of worker was busy.
        workers: how many of each kind there were.
        decoders_per_predictor: how many decode workers keep one predict worker busy, by the seconds that images took in
            each; None without images.
        bound_by: what the run waited for: start-up (more than half of the time), read, decode, predict, or nothing.
        images_per_second: over the wall time.
    """

    run_id: str
    status: Status
    ended_by: str | None
    started_at: str
    seconds: float
    config: dict[str, Any]
    fingerprint: dict[str, Any]
    versions: dict[str, str]
    shards_in: int
    shards_passed_over: int
    shards_committed: int
    shards_already_done: int
    shards_failed: dict[str, str]
    shards_left: int
    shards_todo: int
    bytes_todo: int
    results_with_other_fingerprint: int
    shards_broken: dict[str, str]
    images: dict[str, int]
    crops: int
    clips: int
    frames: int
    detections: dict[str, Any]
    images_carried_over: int
    images_already_done: dict[str, int]
    reasons: dict[str, int]
    species: dict[str, int]
    ignored: dict[str, int]
    step_seconds: dict[str, float]
    start_up_seconds: float
    busy: dict[str, float]
    workers: dict[str, int]
    decoders_per_predictor: float | None
    bound_by: str
    images_per_second: float

    def write(self, output: str) -> str:
        """Store the manifest; return its URL."""
        url = layout.manifest(output, self.run_id)
        store.put(url, json.dumps(asdict(self), indent=2, ensure_ascii=False).encode())
        return url


def listed(output: str) -> list[Entry]:
    """Return the files in OUTPUT that have a manifest's name, in the order of their runs' start.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    return [
        entry for entry in store.list_files(layout.runs_folder(output), missing_ok=True) if entry.url.endswith(".json")
    ]


def read(entries: Sequence[Entry]) -> list[tuple[Entry, dict[str, Any]]]:
    """Read manifests; leave out other files, damaged ones, and files that have been deleted.

    Raises:
        TransientError: the store does not answer.
    """
    with ThreadPoolExecutor(_READS) as threads:
        contents = threads.map(_read, entries)
        return [(entry, content) for entry, content in zip(entries, contents, strict=True) if content]


def _read(entry: Entry) -> dict[str, Any] | None:
    try:
        content = json.loads(store.read_many([entry.url])[0])
        digest, run_id, status = content["fingerprint"]["digest"], content["run_id"], content["status"]
        if part := content.get("config", {}).get("part"):
            parse_part(part)
    except (StorageError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return content if all(isinstance(value, str) for value in (digest, run_id, status)) else None


def latest(output: str) -> dict[str, Any] | None:
    """Return the manifest of the last run that classified images; None if there is none among the last ten.

    Raises:
        StorageError, TransientError: the store refuses, or does not answer.
    """
    for entry in listed(output)[::-1][:_LOOKED_AT]:
        for _, content in read([entry]):
            if content.get("decoders_per_predictor"):
                return content
    return None
