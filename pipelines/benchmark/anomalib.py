"""anomalib's GANomaly at the work of a scoring job, in another environment than ganad's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ganad.errors import ConfigError


def predict_with_anomalib(
    python: str, folder: str, size: int, num_workers: int, *, pictures: bool = False
) -> float:
    """Images per second, from the second batch on, of its Engine.predict on a folder.

    pictures: with the picture of each image that it makes by default; without, the scores alone.
    Raises ConfigError for a Python without anomalib.
    """
    program = Path(__file__).with_name("anomalib_predict.txt").read_text()
    arguments = [folder, str(size), str(num_workers), str(int(pictures))]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(
            f"--anomalib {python} does not predict with anomalib's GANomaly ({said}): name the "
            f"python of an environment in which pip install anomalib was run"
        ) from None
