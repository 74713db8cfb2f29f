"""Read and write files in any store that a URL can name; imports `trapline.errors` alone."""
