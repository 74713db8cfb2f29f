"""`python -m jobs.export_camtrapdp …` is `trapline export-camtrapdp …`, from a checkout."""

import sys

from trapline.cli.export_camtrapdp import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
