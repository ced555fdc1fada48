"""python -m pipelines.benchmark.gpu --out FOLDER: ganad benchmark gpu where neither Ray nor the
libraries of the command line are installed."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ganad.errors import GanadError
from pipelines.benchmark.gpu.run import gpu

parser = argparse.ArgumentParser(prog="python -m pipelines.benchmark.gpu")
parser.add_argument("--out", required=True, help="folder to write to")
parser.add_argument("--rows", default="", help="some of the rows, comma-separated; default: all")
parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement")
parser.add_argument("--device", default="auto", help="auto, cuda or cpu")


def main() -> None:
    """Measure, write and print."""
    given = parser.parse_args()
    rows = [word.strip() for word in given.rows.split(",") if word.strip()]
    tell = partial(print, file=sys.stderr, flush=True)
    try:
        print(gpu(given.out, rows, seconds=given.seconds, device=given.device, tell=tell), end="")
    except GanadError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
