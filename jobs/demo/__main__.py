"""`python -m jobs.demo`."""

import sys

from jobs.demo import main

sys.exit(main(sys.argv[1:]))
