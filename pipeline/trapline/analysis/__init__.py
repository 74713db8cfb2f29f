"""Work on the results of `classify`: events, new scores, packages, search and reports, in DuckDB and Arrow.

Imports the rooms up to `results` and `ray_session`, not `run`. It has modules of its own and six wings, packages that
never import each other: search, events, rescoring, camtrapdp, report and flat_tables.
"""
