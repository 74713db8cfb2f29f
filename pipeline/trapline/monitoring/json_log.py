"""Log a run for log collectors: one JSON object per line, each with the time and the run's id."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from rich.console import Console

from trapline.monitoring.console import LINE_EVERY
from trapline.run.manifest import Manifest
from trapline.run.progress import Progress


class JsonLog:
    """Log a run. `event` is `progress`, `note`, or `end`, which has the whole manifest.

    Args:
        console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line = monotonic() + LINE_EVERY
        self._run_id: str | None = None

    def __call__(self, progress: Progress) -> None:
        """Log the totals, if a line is due."""
        self._run_id = progress.plan.run_id
        if monotonic() < self._next_line:
            return
        self._next_line = monotonic() + LINE_EVERY
        self._line(
            "progress",
            images=progress.tallies.images_seen,
            failed=progress.tallies.failed_seen,
            images_per_second=round(progress.images_per_second, 2),
            shards_committed=len(progress.shards.committed),
            shards_todo=len(progress.plan.todo),
            fraction_done=round(progress.shards.fraction_done, 4),
            busy={kind: round(share, 3) for kind, share in progress.workers.busy.items()},
        )

    def note(self, text: str) -> None:
        """Log something that a person should know."""
        self._line("note", text=text)

    def end(self, manifest: Manifest) -> None:
        """Log how the run ended."""
        self._run_id = manifest.run_id
        self._line("end", **asdict(manifest))

    def _line(self, event: str, **values: Any) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": self._run_id,
            "event": event,
            **values,
        }
        # Not `print`: rich would wrap the line, and take brackets for its markup.
        self._console.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._console.file.flush()
