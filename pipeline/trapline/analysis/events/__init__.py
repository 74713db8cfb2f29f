"""Group the images of a camera into events; imports the modules of `trapline.analysis` itself, and no other wing."""
