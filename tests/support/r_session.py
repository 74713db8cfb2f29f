"""R, where it is installed: code run in a new session, in a time zone that is not UTC."""

import json
import os
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest

# Its clocks skip an hour: R drops the hours of a whole column where it takes one of them for a local time.
_ZONE = "America/New_York"


@cache
def _has(*packages: str) -> bool:
    if not shutil.which("Rscript"):
        return False
    names = ", ".join(f'"{name}"' for name in packages)
    ask = f"quit(status = !all(vapply(c({names}), requireNamespace, logical(1), quietly = TRUE)))"
    return not subprocess.run(["Rscript", "-e", ask], check=False, capture_output=True).returncode


def require(*packages: str) -> None:
    """Skip the test where R lacks one of these packages, or is not there."""
    if not _has(*packages):
        pytest.skip(f"R is not on this machine with {', '.join(packages)}")


def answer(code: str) -> Any:
    """Return what R code prints as JSON.

    Raises:
        CalledProcessError: R stopped with an error.
    """
    done = subprocess.run(
        ["Rscript", "-e", code], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "TZ": _ZONE}
    )
    return json.loads(done.stdout)
