"""`python -m jobs.schema …` is `trapline schema …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["schema", *sys.argv[1:]]))
