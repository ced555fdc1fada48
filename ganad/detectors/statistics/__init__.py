"""Detectors fitted by statistics of the features of normal images."""
