"""Drawn photographs of birds for the demo: the birds, where they live, and whole scenes."""
