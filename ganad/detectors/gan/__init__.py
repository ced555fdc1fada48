"""Detectors that train generative adversarial networks."""
