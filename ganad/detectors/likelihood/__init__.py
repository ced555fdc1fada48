"""Detectors that model the likelihood of pixels."""
