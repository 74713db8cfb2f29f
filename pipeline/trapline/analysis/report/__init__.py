"""The report: one HTML page about an archive. Imports no other wing of analysis."""
