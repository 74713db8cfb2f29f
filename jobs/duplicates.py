"""`python -m jobs.duplicates …` is `trapline duplicates …`, from a checkout."""

import sys

from trapline.cli.duplicates import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
