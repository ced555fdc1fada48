"""Detectors over the maps of a frozen network: they score every place of an image."""
