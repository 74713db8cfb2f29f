"""Find images that are like others, or are stored twice. Imports no other wing of analysis."""
