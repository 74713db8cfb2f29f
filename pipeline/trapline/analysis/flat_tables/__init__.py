"""Write the rows of results without vectors, in few large files. Imports no other wing of analysis."""
