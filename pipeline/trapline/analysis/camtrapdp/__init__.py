"""Write Camtrap DP packages; imports the modules of `trapline.analysis` itself, and no other wing."""
