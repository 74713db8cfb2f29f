"""`python -m jobs.export_camtrapdp …` is `trapline export-camtrapdp …`, from a checkout."""

import sys

from trapline.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["export-camtrapdp", *sys.argv[1:]]))
