"""`python -m jobs.rescore …` is `trapline rescore …`, from a checkout."""

import sys

from trapline.cli.rescore import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
