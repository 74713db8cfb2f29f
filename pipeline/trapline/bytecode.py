"""Warn where Python would compile torch again in each process, three or more in every run: 7 s each instead of 2 s.

pip compiles what it installs, uv only with `--compile-bytecode`; Python itself keeps what it has
compiled, but not under PYTHONDONTWRITEBYTECODE, nor where the user of a container may not write to the packages.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# The largest package that every process of a run imports; where it is compiled, the others usually are, too.
_PACKAGE = "torch"


def bytecode_warning(package: str = _PACKAGE) -> str | None:
    """Return a warning of one line if a package is not compiled and cannot be; None if it is.

    Args:
        package: its name; it is looked up, not imported.
    """
    spec = find_spec(package)
    if spec is None or spec.cached is None or Path(spec.cached).exists():
        return None
    folder = Path(spec.cached).parent
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if sys.dont_write_bytecode:
        why, remedy = "PYTHONDONTWRITEBYTECODE is set", "unset it, or run once"
    elif existing.is_dir() and os.access(existing, os.W_OK):
        return None  # this process compiles it, and keeps it for all others
    else:
        why, remedy = f"{existing} cannot be written", "as its owner, run once"
    return (
        f"{package} is not compiled, and {why}: each process of this run spends some seconds on that; {remedy}: "
        f"{sys.executable} -m compileall -q {Path(spec.cached).parents[2]}"
    )
