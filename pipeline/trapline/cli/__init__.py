"""The command line: one module per command. May import every room.

Commands import what they run with inside their functions: `--help` and shell completion answer at once, and without the
packages of the extra `analysis`. Importing torch, Ray and DuckDB takes seconds.
"""
