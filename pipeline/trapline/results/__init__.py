"""The format of results: rows, files, footers, what OUTPUT holds. May import storage, sources, decoding and model.

`schema`, `fingerprint`, `footer`, `ledger` and `layout` load neither torch nor Pillow, so that what plans a run or
reads its results starts quickly.
"""
