"""One entry point per job, for a checkout: `python -m jobs.classify …` needs the dependencies, not Trapline itself."""

import os
import sys
from pathlib import Path

# Where the package is not installed it lies beside this folder. Processes that this one starts need to find it, too.
_SOURCE = str(Path(__file__).resolve().parents[1] / "pipeline")

if _SOURCE not in sys.path:
    sys.path.insert(0, _SOURCE)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_SOURCE, os.environ.get("PYTHONPATH"))))


def on_worker() -> None:
    """Do nothing: on a worker of a submitted job, importing this module is what makes `trapline` importable there."""
