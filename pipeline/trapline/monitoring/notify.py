"""Whoever wants to know how a run ended is told: a command, with the manifest on its standard input."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from trapline.errors import in_one_line
from trapline.run.manifest import Manifest

# Seconds. A mail or a message takes one or two; a run must not wait for a command that hangs.
_PATIENCE = 60


class Notice:
    """Runs a command once, however the run in its context ends; also when there is no manifest to tell of.

    The command finds the manifest's JSON on its standard input, and in its environment TRAPLINE_STATUS and
    TRAPLINE_MANIFEST, the URL (empty where the run ended before it had one). If it fails, the run does not.

    Args:
        command: for the shell; None to tell nobody.
        note: is told when the command fails.
    """

    def __init__(self, command: str | None, note: Callable[[str], None]) -> None:
        self._command = command
        self._note = note

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "aborted"
            self._tell({"status": status, "ended_by": in_one_line(error)}, "")

    def __call__(self, manifest: Manifest, url: str) -> None:
        """The run has ended."""
        self._tell(asdict(manifest), url)

    def _tell(self, facts: dict[str, Any], url: str) -> None:
        command, self._command = self._command, None  # once
        if not command:
            return
        env = os.environ | {"TRAPLINE_STATUS": facts["status"], "TRAPLINE_MANIFEST": url}
        text = json.dumps(facts, ensure_ascii=False).encode()
        try:
            subprocess.run(command, shell=True, input=text, env=env, timeout=_PATIENCE, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            self._note(f"--notify {command}: failed, and nobody may have been told ({in_one_line(error)})")
