"""`python -m jobs.schema …` is `trapline schema …`, from a checkout."""

import sys

from trapline.cli.schema import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
