"""Run `classify` from plan to manifest, on Ray Data. Imports the rooms below it; not monitoring, analysis or cli."""
