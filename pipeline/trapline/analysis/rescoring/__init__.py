"""analysis/rescoring."""
