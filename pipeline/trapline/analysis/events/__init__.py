"""Group the images of a camera into events. Imports no other wing of analysis."""
