"""Checkpoints become networks, and pixels become predictions. Imports config, errors, storage and decoding only."""
