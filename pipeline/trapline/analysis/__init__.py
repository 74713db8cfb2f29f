"""The last mile: what people do with the results of `classify`, in DuckDB and Arrow.

Only `thumbnails` looks at the pictures themselves, at a few of them.

results, derived, listing              results as a table; tables made of them; what a job found, shown and saved
similarity, duplicates                 pictures like an example; pictures that are there twice
labels, head, calibration, learning,   labels become a head and a temperature, kept, and judged by other cameras
learned, judgement, regression
priors, taxonomy, spreadsheet          what can occur where; what is kin to what; the tables that people write
scores, rescore                        embeddings and all of these become new probabilities, file by file
parallel                               the same over many files: here, or on a cluster
deployments, sessions, pooling,        images of a camera become events, with what they show as a whole
event_tables, events
deployment_table, datapackage,         results and events become a Camtrap DP package
camtrapdp
image_table, report, runs, watch       rows become figures, and cameras that a person should look at
thumbnails, vega, charts, page         pictures from the shards, charts, and all of it as one page
schema                                 the page that documents the row
"""
