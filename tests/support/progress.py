"""Progress of runs that never took place, and what it is made of, for tests."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import ModuleType
from typing import Any

import pytest

from trapline.config import RunConfig
from trapline.decoding.decode import Facts
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.ledger import Result
from trapline.results.rows import image_rows
from trapline.run.messages import EndOfShard, Failure, PredictedChunk
from trapline.run.plan import RunPlan
from trapline.run.progress import Progress
from trapline.sources.records import Record
from trapline.sources.shards import Discovery, Shard
from trapline.storage.store import Entry

MARK = Fingerprint({"weights_sha256": "ab", "top_k": 5})


class Silent:
    """Receives progress, and keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, progress: Progress) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def shards(count: int) -> list[Shard]:
    """Of a thousand bytes each."""
    uris = [f"s3://b/{number:02}.tar" for number in range(count)]
    return [Shard(uri, "tar", 1000, "1000-e", f"results/{uri[-6:]}.parquet") for uri in uris]


def run_progress(
    todo: int = 4, done: int = 0, left: int = 0, stop_at: datetime | None = None, **options: Any
) -> Progress:
    """Of a run over some shards; `left` are beyond its limit."""
    config = RunConfig(**{"inputs": ("s3://b",), "output": "results", "model": "model.pt"} | options)
    found = Discovery(shards(done + todo + left), {"Thumbs.db": 2})
    already_done = [result(each) for each in found.shards[:done]]
    return Progress(RunPlan(config, MARK, found, already_done, found.shards[done : done + todo], stop_at=stop_at))


def result(of: Shard) -> Result:
    """What the ledger knows of that file."""
    return Result.of(Entry(of.output, 500, "500-e"), footer(of))


def footer(of: Shard, **values: Any) -> Footer:
    """Of a file of five rows."""
    whole = Footer(
        uri=of.uri,
        identity=of.identity,
        fingerprint=MARK,
        images={"ok": 3, "salvaged": 1, "failed": 1},
        reasons={"truncated": 1, "empty": 1},
        species={"owl": 4},
        ignored={".mp4": 1},
        broken=None,
        size=of.size,
    )
    return replace(whole, **values)


def failure(of: Shard, reason: str = "busy") -> Failure:
    """Of a store that may answer another time."""
    return Failure(of, f"{of.uri}: {reason}", transient=True)


def chunk(of: Shard, ok: int = 8, failed: int = 0, encoded_bytes: int = 0, **seconds: float) -> PredictedChunk:
    """As it comes back from prediction."""
    facts = [Facts("ok", None)] * ok + [Facts("failed", "empty: no bytes")] * failed
    rows = image_rows(of.uri, [Record(str(number), None) for number in range(len(facts))], facts)
    return PredictedChunk(of, 0, rows, encoded_bytes, seconds, end=EndOfShard())


def stopped_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Callable[[float], None]:
    """Stops the clock of these modules at 0; what comes back sets it, in seconds."""
    now = 0.0

    def go_to(seconds: float) -> None:
        nonlocal now
        now = seconds

    for module in modules:
        monkeypatch.setattr(module, "monotonic", lambda: now)
    return go_to
