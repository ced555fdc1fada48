"""Engines: compiled forms of a detector's forward pass. Detectors do not know of them."""
