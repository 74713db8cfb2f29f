"""Write Camtrap DP packages. Imports no other wing of analysis."""
