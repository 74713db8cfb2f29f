"""`python -m jobs.search …` is `trapline search …`, from a checkout."""

import sys

from trapline.cli.search import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
