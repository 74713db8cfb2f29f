"""New scores from stored results, without the images. Imports no other wing of analysis."""
