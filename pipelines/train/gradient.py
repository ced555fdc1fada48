"""Fit a detector by gradient descent: Ray Data decodes images once, Ray Train steps over them."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ganad.detectors import create
from ganad.detectors.base import GradientDetector
from ganad.errors import ArchiveError, GanadError, TrainingError
from ganad.images.protocol import Subset
from ganad.model import Model
from ganad.storage import files as storage
from ganad.training.fit import calibrate
from ganad.training.trainer import Progress, Trainer
from pipelines.cluster.connection import Resources
from pipelines.console.progress import Meter, say
from pipelines.train.curve import Curve
from pipelines.train.images import open_images
from pipelines.train.job import TrainingJob
from pipelines.train.predecode import Decoded, predecode
from pipelines.train.record import Record
from pipelines.train.stopwatch import Stopwatch

CHECKPOINT_STEPS = 200
"""Steps between checkpoints; the last step always has one."""
LOOK_STEPS = 25
"""Steps between looks whether a machine is about to go: all workers meet for each."""


class Reporter:
    """Carries news from rank 0 to the process that a person watches."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.events: list[str] = []
        self.failure: str | None = None

    def report(self, latest: dict[str, Any], events: list[str]) -> None:
        self.latest = latest or self.latest
        self.events += events

    def fail(self, sentence: str) -> None:
        self.failure = sentence

    def read(self) -> tuple[dict[str, Any], list[str], str | None]:
        events, self.events = self.events, []
        return self.latest, events, self.failure


def fit_gradient(job: TrainingJob, resources: Resources) -> None:
    """Fit, calibrate and save the detector of the job; goes on from the last checkpoint."""
    decoded = predecode(job, resources)
    # Beside the driver: on a worker's node it would be lost with it, and the training with both.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind: Any = ray.remote(num_cpus=0)(Reporter)
    reporter = kind.options(scheduling_strategy=here).remote()
    config = {"job": job, "decoded": decoded, "reporter": reporter, "threads": resources.threads}
    file_system, path = storage.arrow_filesystem(job.place("checkpoints"))
    num_workers: Any = resources.elastic or resources.num_workers
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=bool(resources.gpus),
            resources_per_worker={"CPU": resources.cpus, **({"GPU": 1} if resources.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name="run",  # the folder is the job's own, so its one run may have a fixed name
            storage_path=path,
            storage_filesystem=file_system,
            failure_config=ray.train.FailureConfig(max_failures=3),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    watched = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reporter, job, watched), daemon=True)
    watcher.start()
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(f"{job.model}: training failed: {_reason(error)}") from error
    finally:
        watched.set()
        watcher.join(timeout=10)
    failure = ray.get(reporter.read.remote())[2]
    if failure:
        raise TrainingError(failure)


def _reason(error: Exception) -> str:
    causes = getattr(error, "worker_failures", None) or {0: error}
    lines = [line for line in str(next(iter(causes.values()))).splitlines() if line.strip()]
    reason, remedy = (lines[-1] if lines else str(error)), "run the same command again"
    # What was raised on purpose ends with a remedy of its own, which may be this one.
    return reason if remedy in reason else f"{reason}; {remedy} to go on"


def _watch(reporter: Any, job: TrainingJob, finished: threading.Event) -> None:
    """Show progress until training has ended."""
    meter: Meter | None = None
    try:
        while True:
            last_look = finished.wait(0.5)
            latest, events, _ = ray.get(reporter.read.remote())
            for event in events:
                say(event)
            if latest:
                if meter is None:
                    total, begun = latest["total_images"], latest["begun_images"]
                    meter = Meter("training", total, "images", begun).__enter__()
                meter.update(latest["images"], latest["note"])
            if last_look:
                break
    except ray.exceptions.RayError:
        pass  # the run is ending with an error of its own, which is the one to show
    finally:
        if meter is not None:
            meter.__exit__(None, None, None)


def _work(config: dict[str, Any]) -> None:
    """What each rank runs."""
    job: TrainingJob = config["job"]
    try:
        _train(job, config["decoded"], config["reporter"], config["threads"])
    except ArchiveError:
        raise  # of this rank alone: Ray ends the others, which wait for it, and they try again
    except GanadError as error:  # raised on every rank alike; trying again would not help
        ray.get(config["reporter"].fail.remote(str(error)))


def _train(job: TrainingJob, decoded: Decoded, reporter: Any, num_threads: int) -> None:
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    torch.set_num_threads(num_threads)
    images = open_images(
        job, decoded, lambda sentence: ray.get(reporter.report.remote({}, [sentence]))
    )
    detector = create(job.detector, job.config)
    assert isinstance(detector, GradientDetector)
    positions = job.positions("train", decoded.bad)
    labels = job.table(["label"])["label"].to_pylist()
    trainer = Trainer(
        detector,
        Subset(images, positions),
        rank=rank,
        num_ranks=context.get_world_size(),
        device=device,
        labels=[labels[i] for i in positions],
    )
    history: list[dict[str, Any]] = []
    curve = Curve()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "state.pt", weights_only=True, map_location=device)
        trainer.restore(state)
        history, curve = state["history"], Curve(state["curve"])
        if rank == 0:
            num = context.get_world_size()
            workers = f"{num} worker{'s' if num > 1 else ''}"
            event = f"going on from step {trainer.step} with {workers}"
            ray.get(reporter.report.remote({}, [event]))
    record = Record(job, images, decoded, detector, trainer.step) if rank == 0 else None
    begun, rate, watch, known = trainer.step, None, Stopwatch(), None
    reported = (trainer.step, 0.0)
    for progress in watch.each("steps", trainer.run()):
        if progress.losses:
            rate = round(progress.images_per_second, 1)
            num, spent = progress.step - reported[0], watch.seconds["steps"] - reported[1]
            reported = (progress.step, watch.seconds["steps"])
            now = {"images_per_second": num * trainer.batch_size / spent}
            curve.add(progress.step, {**progress.losses, **now})
        if progress.epoch_ended:
            entry = {"epoch": progress.epoch, "step": progress.step, **progress.losses}
            if record is not None:
                with watch("looking"):
                    entry.update(record.epoch(progress))
            history.append(entry)
        for event in progress.events:
            history.append({"step": progress.step, "event": event})
        if record is not None and (progress.losses or progress.events):
            with watch("looking"):
                record.losses(progress)
            with watch("ray"):
                news = _news(progress, trainer.batch_size, begun, detector.config.epochs)
                reporter.report.remote(news, progress.events)
        with watch("ray"):
            told = ray.train.get_preemption_info() if progress.step % LOOK_STEPS == 0 else None
            leaving = told is not None and told != known
            if leaving or progress.step % CHECKPOINT_STEPS == 0 or progress.step == progress.total:
                _save_checkpoint(trainer, {"history": history, "curve": curve.points}, rank)
            if leaving and rank == 0:
                event = f"a machine is about to be taken away: saved step {progress.step}"
                reporter.report.remote({}, [event])
            known = told or known
    if record is not None:
        record.close()
        positions = job.positions("calibration", decoded.bad)
        ids = job.table(["image_id"])["image_id"].to_pylist()
        calibration = calibrate(detector, images, positions, [ids[i] for i in positions])
        facts = {
            **job.facts,
            "num_unreadable": len(decoded.bad),
            "num_workers": context.get_world_size(),
            "steps": trainer.total,
            "batch_size": trainer.batch_size,
            "images_per_second": rate,
            # Of rank 0 since it began: steps, reporting and checkpoints, validation and pictures.
            "seconds": {name: round(spent, 3) for name, spent in watch.seconds.items()},
            "history": history,
        }
        storage.write_json(job.place("curves.json"), curve.points)
        Model(detector.eval(), calibration, facts).save(job.model)


def _news(progress: Progress, batch_size: int, begun: int, epochs: int) -> dict[str, Any]:
    losses = " ".join(f"{name} {loss:.4g}" for name, loss in progress.losses.items())
    return {
        "images": progress.step * batch_size,
        "total_images": progress.total * batch_size,
        "begun_images": begun * batch_size,
        "note": f"epoch {min(progress.epoch + 1, epochs)}/{epochs} {losses}",
    }


def _save_checkpoint(trainer: Trainer, beside: dict[str, Any], rank: int) -> None:
    """Every rank comes here at the same step, since reporting waits for all of them."""
    state = {**trainer.state(), **beside}
    metrics = {"step": trainer.step}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / "state.pt")
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint.from_directory(folder),
            checkpoint_dir_name=f"step_{trainer.step:08d}",
        )
