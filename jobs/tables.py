"""`python -m jobs.tables …` is `trapline tables …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["tables", *sys.argv[1:]]))
