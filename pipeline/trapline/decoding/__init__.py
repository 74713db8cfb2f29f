"""Encoded images become uint8 pixels at the model's size, and facts; imports config and errors only."""
