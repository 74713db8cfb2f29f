"""Show a run while it goes on: terminal, JSON log, Prometheus, a command at its end. Imports run and below."""
