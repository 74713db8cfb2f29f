"""`python -m jobs.verify …` is `trapline verify …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
