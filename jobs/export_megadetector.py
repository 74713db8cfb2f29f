"""`python -m jobs.export_megadetector …` is `trapline export-megadetector …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["export-megadetector", *sys.argv[1:]]))
