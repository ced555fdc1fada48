"""From bytes to pixels: decoding, loading, and the images that a training reads."""
