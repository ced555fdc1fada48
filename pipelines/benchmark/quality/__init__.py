"""Benchmarks of what detectors find, and of what their numbers promise."""
