"""`python -m jobs.duplicates …` is `trapline duplicates …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["duplicates", *sys.argv[1:]]))
