"""`python -m jobs.verify …` is `trapline verify …`, from a checkout."""

import sys

from trapline.cli.verify import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
