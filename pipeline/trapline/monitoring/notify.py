"""Run the command of --notify when a run ends, with the manifest on its standard input."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from threading import Lock
from types import TracebackType
from typing import Any, Self

from trapline.errors import in_one_line
from trapline.run.manifest import Manifest

# Seconds. A mail or a message takes one or two; a run must not wait for a command that hangs.
_TIMEOUT = 60


class EndOfRunHook:
    """Run the --notify command once, however the run in the context ends, even without a manifest.

    The command gets the manifest's JSON on its standard input, and in its environment TRAPLINE_STATUS and
    TRAPLINE_MANIFEST, the URL (empty if the run ended before it had one). If the command fails, the run does not.

    Args:
        command: for the shell; None for none.
        note: receives that the command failed.
    """

    def __init__(self, command: str | None, note: Callable[[str], None]) -> None:
        self._command = command
        self._lock = Lock()
        self._note = note

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "aborted"
            self._notify({"status": status, "ended_by": in_one_line(error)}, "")

    def __call__(self, manifest: Manifest, url: str) -> None:
        """Report the closing manifest of the run."""
        self._notify(asdict(manifest), url)

    def _notify(self, facts: dict[str, Any], url: str) -> None:
        with self._lock:
            command, self._command = self._command, None  # once
        if not command:
            return
        env = os.environ | {"TRAPLINE_STATUS": facts["status"], "TRAPLINE_MANIFEST": url}
        text = json.dumps(facts, ensure_ascii=False).encode()
        try:
            subprocess.run(command, shell=True, input=text, env=env, timeout=_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            self._note(f"--notify {command}: failed, and the message may not have been sent ({in_one_line(error)})")
