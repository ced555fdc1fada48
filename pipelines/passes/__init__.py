"""Passes over an archive with Ray: listing, units of work, actors."""
