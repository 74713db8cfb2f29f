"""`python -m jobs.benchmark`."""

import sys

from jobs.benchmark import main

sys.exit(main(sys.argv[1:]))
