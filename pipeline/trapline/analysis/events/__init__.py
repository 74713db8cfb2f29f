"""analysis/events."""
