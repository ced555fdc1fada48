"""The training loop of every method trained by gradient, and fit() in one process."""
