"""Fit a detector by gradient descent: Ray Data decodes images once, Ray Train steps over them."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ganad.archive.splits import fold_names
from ganad.detectors import create
from ganad.detectors.gradient import GradientDetector
from ganad.engines.backbone import attach_backbone
from ganad.errors import ArchiveError, GanadError, TrainingError
from ganad.heat import Heat
from ganad.images.protocol import Subset
from ganad.model import Model, load
from ganad.storage import files as storage
from ganad.training.fit import NO_CALIBRATION
from ganad.training.folds import FoldResult, settle
from ganad.training.held_out import HeldOut
from ganad.training.maps import fit_maps, fit_scale
from ganad.training.record import Record
from ganad.training.trainer import Progress, Trainer
from pipelines.cluster.connection import Resources
from pipelines.passes.engines import EAGER
from pipelines.train.checkpoint import name_of, read_checkpoint, write_checkpoint
from pipelines.train.engines import scoring_trials
from pipelines.train.images import moments_at, open_images, open_pixels
from pipelines.train.job import TrainingJob
from pipelines.train.predecode import Decoded, prepare_inputs
from pipelines.train.reporter import Reporter, watched

CHECKPOINT_STEPS = 200
"""Steps between checkpoints; the last step always has one."""
PREEMPTION_STEPS = 25
"""Steps between looks whether a machine is about to be taken away: all workers meet for each."""


def fit_gradient(job: TrainingJob, resources: Resources) -> None:
    """Fit, calibrate and save the detector of the job; continues from the last checkpoint."""
    detector = create(job.detector, job.config)
    assert isinstance(detector, GradientDetector)
    decoded = prepare_inputs(job, detector, resources)
    folds = _folds(job, decoded)
    for number, part in enumerate(folds, 1):
        if not storage.exists(storage.join(part.model, "model.json")):
            _train(part, decoded, resources, f"training without fold {number} of {len(folds)}")
    _train(job, decoded, resources, "training")


def _folds(job: TrainingJob, decoded: Decoded) -> list[TrainingJob]:
    """The trainings whose models calibrate that of the job: none without a crossed calibration."""
    names = fold_names(job.config.calibration_folds)
    if not names:
        return []
    parts = job.table(["part"])["part"].to_pylist()
    there = {part for row, part in enumerate(parts) if row not in decoded.bad}
    return [job.without(name) for name in names if name in there]


def _train(job: TrainingJob, decoded: Decoded, resources: Resources, title: str) -> None:
    # Beside the driver: on a worker's node it would be lost with it, and the training with both.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(Reporter)
    reporter = actor.options(scheduling_strategy=here).remote()
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
    with watched(reporter, title):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise TrainingError(f"{job.model}: training failed: {_reason(error)}") from error
    failure = ray.get(reporter.read.remote())[2]
    if failure:
        raise TrainingError(failure)


def _reason(error: Exception) -> str:
    causes = getattr(error, "worker_failures", None) or {0: error}
    lines = [line for line in str(next(iter(causes.values()))).splitlines() if line.strip()]
    reason, remedy = (lines[-1] if lines else str(error)), "run the same command again"
    # What was raised on purpose ends with a remedy of its own, which may be this one.
    return reason if remedy in reason else f"{reason}; {remedy} to go on"


def _work(config: dict[str, Any]) -> None:
    """The function that Ray Train runs on each rank."""
    reporter = config["reporter"]
    torch.set_num_threads(config["threads"])
    try:
        rank = _Rank(config["job"], config["decoded"], reporter)
        rank.restore()
        rank.train()
        rank.finish()
    except ArchiveError:
        raise  # of this rank alone: Ray ends the others, which wait for it, and they try again
    except GanadError as error:  # raised on every rank alike; trying again would not help
        ray.get(reporter.fail.remote(str(error)))


def _result(job: TrainingJob) -> FoldResult:
    """That of a training without a fold, which has ended."""
    assert job.fold is not None
    model = load(job.model)
    assert isinstance(model.detector, GradientDetector)
    calibration, heat = model.calibration, Heat.read(job.model)
    assert calibration is not None  # there are images in the fold
    held_out = HeldOut(calibration.ids, calibration.scores, heat=heat or Heat())
    return FoldResult(job.fold, held_out, model.detector.scale, model.training["history"])


class _Rank:
    """One worker of a training. Rank 0 also records it, tells the driver, and saves the model."""

    def __init__(self, job: TrainingJob, decoded: Decoded, reporter: Any) -> None:
        self.job, self.decoded, self.reporter = job, decoded, reporter
        context = ray.train.get_context()
        self.rank, self.num_ranks = context.get_world_rank(), context.get_world_size()
        self.images = open_images(job, decoded, self._tell)
        detector = create(job.detector, job.config)
        assert isinstance(detector, GradientDetector)
        positions = job.positions("train", decoded.bad)
        if job.engine != EAGER:
            attach_backbone(detector, job.engine)
        if detector.maps is not None:
            detector.to(ray.train.torch.get_device())
            fit_maps(detector, moments_at(decoded, positions))
        labels = job.table(["label"])["label"].to_pylist()
        self.trainer = Trainer(
            detector,
            Subset(self.images, positions),
            rank=self.rank,
            num_ranks=self.num_ranks,
            device=ray.train.torch.get_device(),
            labels=[labels[i] for i in positions],
        )
        self.record: Record | None = None
        """Of rank 0."""
        self.begun = 0
        """Step at which this process began."""
        self.suffix = ""
        """Of the names of checkpoints."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Time spent beside the steps, by activity."""

    def restore(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        trainer, checkpoint, state = self.trainer, ray.train.get_checkpoint(), None
        if checkpoint is not None:
            state = read_checkpoint(checkpoint, trainer.device, self._passed_over)
            if state is not None:
                trainer.restore(state)
        self.begun = trainer.step
        if self.rank != 0:
            return
        if state is not None:
            workers = f"{self.num_ranks} worker{'s' if self.num_ranks > 1 else ''}"
            self._tell(f"going on from step {trainer.step} with {workers}")
        folder, shown = None if self.job.fold else self.job.place(), self._shown()
        pixels = None if trainer.detector.maps is None else open_pixels(self.job)
        self.record = Record(
            folder, self.images, shown, trainer.detector, trainer.step, state, pixels
        )

    def _passed_over(self, said: str) -> None:
        """Ray still lists the damaged checkpoint and will remove its folder, so that no later one
        may have its name."""
        self.suffix = f"_{secrets.token_hex(3)}"
        if self.rank == 0:
            self._tell(said)

    def _shown(self) -> np.ndarray:
        """Row numbers of normal images that do not train: they are watched, and scale terms."""
        validation = self.job.positions("validation", self.decoded.bad)
        if len(validation):
            return validation
        return self.job.positions("calibration", self.decoded.bad)

    def train(self) -> None:
        """Step to the end."""
        known = None
        for progress in self.trainer.run():
            if self.record is not None:
                with self._timed("looking"):
                    self.record.add(progress)
                if progress.losses or progress.events:
                    with self._timed("ray"):
                        self.reporter.report.remote(self._news(progress), progress.events)
            with self._timed("ray"):
                look = progress.step % PREEMPTION_STEPS == 0
                preemption = ray.train.get_preemption_info() if look else None
                leaving = preemption is not None and preemption != known
                due = progress.step % CHECKPOINT_STEPS == 0 or progress.step == progress.total
                if leaving or due:
                    self._save_checkpoint()
                if leaving and self.rank == 0:
                    self._tell(f"a machine is about to be taken away: saved step {progress.step}")
                known = preemption or known

    def finish(self) -> None:
        """Calibrate and save the model."""
        if self.record is None:
            return
        self.record.close()
        job, trainer = self.job, self.trainer
        attach_backbone(trainer.detector, EAGER)
        fit_scale(trainer.detector, self.images, self._shown())
        history, folds = self.record.history, 0
        results = list(map(_result, _folds(job, self.decoded))) if job.fold is None else []
        if results:
            folds, held_out = job.config.calibration_folds, settle(trainer.detector, results)
            history += [event for one in results for event in one.events]
        else:
            held_out = self._held_out()
        calibration = held_out.calibration(folds)
        if calibration is None:
            self._tell(NO_CALIBRATION)
        num_images = (trainer.total - self.begun) * trainer.batch_size
        facts = {
            **job.facts,
            "num_unreadable": len(self.decoded.bad),
            "num_workers": self.num_ranks,
            "steps": trainer.total,
            "batch_size": trainer.batch_size,
            "images_per_second": round(num_images / trainer.seconds, 1) if num_images else None,
            # Of rank 0 since it began: steps, reporting and checkpoints, validation and pictures.
            "seconds": {"steps": round(trainer.seconds, 3)}
            | {name: round(spent, 3) for name, spent in self.seconds.items()},
            "history": history,
        }
        if calibration is not None:
            facts["calibration"] = calibration.method
        model = Model(trainer.detector.eval(), calibration, facts)
        if job.fold is None:
            facts |= scoring_trials(job, model)
        model.save(job.model, held_out.files())

    def _held_out(self) -> HeldOut:
        """The images that calibrate this training's model, scored."""
        positions = self.job.positions("calibration", self.decoded.bad)
        ids = self.job.table(["image_id"])["image_id"].to_pylist()
        found = [ids[i] for i in positions]
        # Archives are scored from pixels: maps by another engine would not be quite the same.
        images = self.images if self.job.engine == EAGER else open_pixels(self.job)
        return HeldOut.from_images(self.trainer.detector, images, positions, found)

    def _save_checkpoint(self) -> None:
        """Every rank comes here at the same step, because reporting waits for all of them."""
        state, metrics = self.trainer.state(), {"step": self.trainer.step}
        if self.record is None:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            ray.train.report(
                metrics,
                checkpoint=write_checkpoint(folder, {**state, **self.record.state}),
                checkpoint_dir_name=name_of(self.trainer.step, self.suffix),
            )

    def _news(self, progress: Progress) -> dict[str, Any]:
        """What the driver shows."""
        losses = " ".join(f"{name} {loss:.4g}" for name, loss in progress.losses.items())
        batch_size, epochs = self.trainer.batch_size, self.trainer.detector.config.epochs
        return {
            "images": progress.step * batch_size,
            "total_images": progress.total * batch_size,
            "begun_images": self.begun * batch_size,
            "note": f"epoch {min(progress.epoch + 1, epochs)}/{epochs} {losses}",
        }

    def _tell(self, sentence: str) -> None:
        ray.get(self.reporter.report.remote({}, [sentence]))

    @contextmanager
    def _timed(self, activity: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - began
