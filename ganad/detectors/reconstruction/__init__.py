"""Detectors that score by how badly they reconstruct an image."""
