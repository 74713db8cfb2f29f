"""`python -m jobs.rescore …` is `trapline rescore …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["rescore", *sys.argv[1:]]))
