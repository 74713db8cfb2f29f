"""`trapline tables`: the rows of results without vectors, in few large files.

Imports results and what lies directly in `analysis`.
"""
