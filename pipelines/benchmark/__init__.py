"""Benchmarks of accuracy, speed and memory."""
