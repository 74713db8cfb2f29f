"""Simulations of runs at sizes and with workers that no machine here has: `python -m tests.scaling scale` or `feeding`."""
