"""How good scores are where labels are known, and where to cut them where they are not."""
