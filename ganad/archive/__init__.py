"""Where images come from: listed into a manifest, fetched, and decoded the same way everywhere."""
