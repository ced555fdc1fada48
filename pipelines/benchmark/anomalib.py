"""anomalib's GANomaly at the work of a scoring job, in another environment than ganad's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

from ganad.errors import ConfigError

Way = Literal["scores", "pictures", "openvino"]
"""Engine.predict for the scores alone, or as it comes, with a picture of each image; or
OpenVINOInferencer on the exported model."""
PROGRAMS: dict[Way, str] = {
    "scores": "anomalib_predict.txt",
    "pictures": "anomalib_predict.txt",
    "openvino": "anomalib_openvino.txt",
}


def predict_with_anomalib(
    python: str, folder: str, size: int, num_workers: int, way: Way = "scores"
) -> float:
    """Images per second, from the second batch on, of its predictions for a folder.

    Raises ConfigError for a Python without anomalib, or without OpenVINO.
    """
    program = Path(__file__).with_name(PROGRAMS[way]).read_text()
    arguments = [folder, str(size), str(num_workers), str(int(way == "pictures"))]
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
        packages = "anomalib openvino onnxscript" if way == "openvino" else "anomalib"
        raise ConfigError(
            f"--anomalib {python} does not predict with anomalib's GANomaly ({said}): name the "
            f"python of an environment in which pip install {packages} was run"
        ) from None
