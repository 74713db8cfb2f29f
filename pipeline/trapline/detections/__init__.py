"""A detector's boxes, matched to the images of the input; imports config, errors, storage, sources and decoding."""
