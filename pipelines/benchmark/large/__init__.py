"""Benchmarks of what a very large archive costs where no image is opened."""
