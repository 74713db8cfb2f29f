"""Trapline: shards become records, records become tensors, tensors become predictions, predictions become Parquet."""

__version__ = "0.1.0"
