"""`python -m jobs.classify …` is `trapline classify …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["classify", *sys.argv[1:]]))
