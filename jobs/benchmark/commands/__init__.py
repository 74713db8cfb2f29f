"""The commands of the benchmarks: each calls a module that measures, prints a table, and writes the figures as JSON."""
