"""The command line: one module per command. May import every room.

Commands import the rooms inside their functions, so that `--help` and shell completion answer at once, and without the
packages of the extra `analysis`: importing torch, Ray and DuckDB takes seconds.
"""
