"""Shared parts of the detectors: encoders, generators, initialisation. No losses here."""
