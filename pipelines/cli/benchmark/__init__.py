"""The `ganad benchmark` commands. Each parses its arguments, calls one function and prints."""

from pipelines.cli.benchmark import jobs, quality, speed
from pipelines.cli.benchmark.program import benchmarks

__all__ = ["benchmarks", "jobs", "quality", "speed"]
