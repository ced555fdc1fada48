"""The scoring job: an archive and trained detectors become a score table."""
