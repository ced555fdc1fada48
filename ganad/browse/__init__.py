"""A local web page for a score table: look at the worst images and say which are defects."""
