"""One short entry point per job; `python -m jobs.NAME --help` says what each does."""
