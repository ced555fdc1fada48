"""Networks that several detectors share: encoders, generators, initialisation. No losses."""
