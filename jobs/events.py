"""`python -m jobs.events …` is `trapline events …`, from a checkout."""

import sys

from trapline.cli.events import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
