"""`python -m jobs.search …` is `trapline search …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
