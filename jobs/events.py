"""`python -m jobs.events …` is `trapline events …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["events", *sys.argv[1:]]))
