"""The Ray Data graph of every pass over an archive: units -> decoding -> workers.

With GPUs the stages are separate: decoding on processor cores, workers on their GPUs. Without, a
worker decodes for itself: a second stage would only copy pixels, and its tasks would wait forever
for cores that the workers hold.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray.data

from ganad.errors import CapacityError
from ganad.images.decode import Preprocessing
from pipelines.cluster.connection import Resources
from pipelines.passes.decoding import FAILURE, decode_unit
from pipelines.passes.units import Unit
from pipelines.passes.worker import UnitWorker


def stream(
    units: Sequence[Unit],
    worker: type[UnitWorker],
    arguments: Mapping[str, Any],
    preprocessings: Sequence[Preprocessing],
    resources: Resources,
) -> Iterator[dict[str, Any]]:
    """Run all units through a pool of workers; yields each unit's row as soon as it is ready.

    Raises the GanadError that a worker or the decoding raised.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A cluster may have no spot node for an hour of the night: the job waits.
    context.execution_no_progress_timeout_s = -1
    # One unit per block: a task takes a block, and a lost block is done again. from_items makes the
    # blocks here; a repartition would be tasks, which wait forever where workers hold every core.
    data: ray.data.Dataset = ray.data.from_items(
        [unit.item() for unit in units], override_num_blocks=len(units)
    )
    if resources.gpus:
        data = data.map_batches(
            functools.partial(decode_unit, preprocessings=preprocessings), batch_size=1, num_cpus=1
        )
    data = data.map_batches(
        worker,
        fn_constructor_kwargs=dict(arguments),
        batch_size=1,
        num_gpus=resources.gpus or None,
        # With GPUs every core is left to decoding, which workers that took cores would starve.
        num_cpus=0 if resources.gpus else resources.cpus,
        compute=ray.data.ActorPoolStrategy(size=min(resources.num_workers, len(units))),
    )
    try:
        for row in data.iter_rows():
            if FAILURE in row:
                raise pickle.loads(row[FAILURE])
            yield row
    except ray.exceptions.OutOfMemoryError:
        raise CapacityError(
            "--workers: the machine ran out of memory and Ray stopped a worker: use fewer workers"
        ) from None
