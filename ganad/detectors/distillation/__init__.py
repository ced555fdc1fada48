"""Detectors whose networks learn what a frozen network says of normal images."""
