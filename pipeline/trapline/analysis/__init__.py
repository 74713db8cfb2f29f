"""Work on the results of `classify`: events, new scores, packages, search and reports, in DuckDB and Arrow.

Imports the rooms up to `results` and `ray_session`, not `run`. Its six wings are packages that never import each
other: search, events, rescoring, camtrapdp, report and flat_tables.
"""
