"""Some images of a training, read by its driver before the workers start."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ganad.images.load import load_images
from pipelines.train.job import TrainingJob

NUM_FIRST = 32
"""Images that statistics are begun with, for their shift and their shapes, and on which engines of
a frozen network are compared."""


def first_images(job: TrainingJob, rows: pa.Table) -> Tensor:
    """Those of the rows that can be read: uint8 (n, c, s, s), or (0,) if none can."""
    decoded = (one.image for (one,) in load_images(rows.to_pylist(), [job.preprocessing]))
    images = [image for image in decoded if image is not None]
    return torch.from_numpy(np.stack(images)) if images else torch.empty(0, dtype=torch.uint8)
