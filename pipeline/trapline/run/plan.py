"""What a run sets out to do, which is fixed before the first shard is read."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from operator import attrgetter
from uuid import uuid4

from trapline.config import RunConfig
from trapline.results.fingerprint import Fingerprint
from trapline.results.ledger import Result
from trapline.sources.shards import Discovery, Shard

STATUSES = ("ok", "salvaged", "failed")


@dataclass(frozen=True)
class RunPlan:
    """What a run sets out to do.

    Attributes:
        config: of the run.
        fingerprint: of the run.
        found: what the inputs hold.
        already_done: valid results that existed before.
        todo: shards to classify.
        results_with_other_fingerprint: see `Manifest`.
        stop_at: time after which no shard is begun; None for never.
        run_id: see `Manifest`.
        started_at: see `Manifest`.
    """

    config: RunConfig
    fingerprint: Fingerprint
    found: Discovery
    already_done: list[Result]
    todo: list[Shard]
    results_with_other_fingerprint: int = 0
    stop_at: datetime | None = None
    run_id: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}")
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @cached_property
    def todo_bytes(self) -> int:
        """Size of the shards to classify."""
        return sum(shard.size for shard in self.todo)

    @property
    def images_already_done(self) -> Counter[str]:
        """Images of `already_done`, by status."""
        return Counter({status: sum(map(attrgetter(status), self.already_done)) for status in STATUSES})

    @property
    def deadline_passed(self) -> bool:
        """Whether `stop_at` has come."""
        return bool(self.stop_at and datetime.now(UTC) >= self.stop_at)
