"""All figures of a GPU in one go, without Ray: python -m pipelines.benchmark.gpu --out FOLDER"""
