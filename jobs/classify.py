"""`python -m jobs.classify …` is `trapline classify …`, from a checkout."""

import sys

from trapline.cli.classify import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
