"""analysis/search."""
