"""One entry point per command, for a checkout: `python -m jobs.classify …` needs the dependencies, not Trapline."""

import os
import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "pipeline"

# The checkout comes before a Trapline that is installed: in this process, in those that it starts, and by
# `ray_session.connect` on the workers of a cluster.
sys.path.insert(0, str(_SOURCE))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_SOURCE), os.environ.get("PYTHONPATH"))))
os.environ["TRAPLINE_SOURCE"] = str(_SOURCE / "trapline")
