"""What a training keeps of each image on disk: its pixels, or the dense maps its networks see."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ganad.detectors import create
from ganad.detectors.config import DetectorConfig
from ganad.detectors.gradient import GradientDetector
from ganad.engines.backbone import attach_backbone
from ganad.engines.known import module
from ganad.images.decode import Preprocessing
from ganad.images.shards import digest_of, is_intact, shard_bytes
from ganad.storage import files as storage
from ganad.storage.records import Record, write_record
from ganad.training.maps import can_keep_maps, image_moments
from pipelines.passes.engines import EAGER
from pipelines.passes.units import Unit
from pipelines.passes.worker import DecodedUnit, UnitWorker
from pipelines.train.job import TrainingJob


class ShardRecord(Record):
    """The JSON file beside a shard."""

    errors: dict[int, str]
    """Row number -> why its image could not be decoded."""
    digest: str | None
    """Digest of the shard's bytes; None if images are streamed, without a shard."""
    moments: str | None = None
    """Digest of the file of moments; None where pixels are kept."""
    checksum: str
    """Checksum of this file."""


@dataclass(frozen=True)
class Files:
    """Where a unit's files lie."""

    folder: str
    unit: Unit

    def _place(self, name: str) -> str:
        return storage.join(self.folder, name.format(f"{self.unit.start:010d}"))

    @property
    def shard(self) -> str:
        return self._place("shard-{}.npy")

    @property
    def record(self) -> str:
        return self._place("shard-{}.json")

    @property
    def moments(self) -> str:
        """float64 (rows, 2, C), see image_moments; nan for images that cannot be read."""
        return self._place("moments-{}.npy")


class Writer(UnitWorker):
    """Turns a unit into a shard of pixels. The record is written first: a shard that exists is
    finished."""

    def setup(self, preprocessing: Preprocessing, folder: str, keep: bool) -> None:
        self.preprocessings, self.folder, self.keep = [preprocessing], folder, keep

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        kind = self.preprocessings[0]
        pixels = np.zeros((0, kind.channels, kind.image_size, kind.image_size), np.uint8)
        self.write(images, images.images if images.good and self.keep else pixels)
        return {}

    def write(self, images: DecodedUnit, values: np.ndarray, moments: str | None = None) -> None:
        """values: (k, ...) of the k good images. moments: digest of the file of moments."""
        files, data = Files(self.folder, images.unit), None
        if self.keep:
            rows = np.zeros((images.unit.num, *values.shape[1:]), values.dtype)
            rows[images.good] = values
            data = shard_bytes(rows)
        record = ShardRecord(
            errors={images.unit.start + i: text for i, text in images.errors.items()},
            digest=None if data is None else digest_of(data),
            moments=moments,
            checksum="",
        )
        write_record(files.record, record)
        if data is not None:
            storage.write_bytes(files.shard, data)


class MapWriter(Writer):
    """Turns a unit into a shard of raw maps. Their moments by image, which do not depend on how a
    training is split, are written before anything else, and also where no maps are kept."""

    def setup(
        self,
        preprocessing: Preprocessing,
        folder: str,
        keep: bool,
        name: str = "",
        config: DetectorConfig | None = None,
        engine: str = EAGER,
    ) -> None:
        """engine: of the frozen network."""
        super().setup(preprocessing, folder, keep)
        assert config is not None
        torch.set_num_threads(1)  # there is a worker for each core
        detector = create(name, config)
        assert isinstance(detector, GradientDetector)
        self.detector = detector.to("cuda" if torch.cuda.is_available() else "cpu")
        attach_backbone(self.detector, engine)

    def work(self, images: DecodedUnit) -> dict[str, Any]:
        assert self.detector.maps is not None
        channels, grid = self.detector.maps.channels, self.detector.maps.grid
        values = np.zeros((0, channels, grid, grid), np.float16)
        moments = np.full((images.unit.num, 2, channels), np.nan)
        if images.good:
            pixels = torch.from_numpy(images.images)
            with self.detector.scoring():
                raw = self.detector.raw_maps(self.detector.prepare(self.detector.patches(pixels)))
            moments[images.good] = image_moments(raw, len(pixels))
            values = raw.cpu().numpy()
        data = shard_bytes(moments)
        storage.write_bytes(Files(self.folder, images.unit).moments, data)
        self.write(images, values, digest_of(data))
        return {}


@dataclass(frozen=True)
class Kept:
    """What is kept of an image."""

    words: str
    """As messages name it."""
    shape: tuple[int, int, int]
    dtype: str
    worker: type[Writer] = Writer
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the worker, beside the preprocessing, the folder, and whether to keep anything."""
    identity: str = ""
    """All that it depends on beside the pixels, for the name of a folder."""
    reusable: bool = True
    """Every epoch sees the same. If not, only moments are made."""

    @staticmethod
    def pixels(job: TrainingJob) -> Kept:
        size, channels = job.preprocessing.image_size, job.preprocessing.channels
        return Kept("decoded images", (channels, size, size), "uint8")

    @staticmethod
    def maps(job: TrainingJob, detector: GradientDetector[Any]) -> Kept:
        """Of a detector that sees maps."""
        assert detector.maps is not None
        shape = (detector.maps.channels, detector.maps.grid, detector.maps.grid)
        config = detector.config
        by = "" if job.engine == EAGER else f"-{module(job.engine).version()}"
        patch = "" if config.patch is None else f"-{config.patch.model_dump()}"
        return Kept(
            "dense maps",
            shape,
            "float16",
            MapWriter,
            {"name": job.detector, "config": config, "engine": job.engine},
            f"{detector.maps.identity}-{config.precision}{patch}{by}",
            can_keep_maps(detector),
        )

    @property
    def image_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def is_intact(self, files: Files, record: ShardRecord, there: Collection[str]) -> bool:
        """True if the shard has not changed since it was written. Reads all of it."""
        if record.digest is None or name_of(files.shard) not in there:
            return False
        shape = (files.unit.num, *self.shape)
        return is_intact(files.shard, shape, record.digest, self.dtype)

    def has_moments(self, files: Files, record: ShardRecord, there: Collection[str]) -> bool:
        """True if nothing is missing of the moments of maps, or if pixels are kept."""
        if self.worker is Writer:
            return True
        if record.moments is None or name_of(files.moments) not in there:
            return False
        shape = (files.unit.num, 2, self.shape[0])
        return is_intact(files.moments, shape, record.moments, "float64")


def read_moments(uri: str) -> np.ndarray:
    """A file of moments: float64 (rows, 2, C)."""
    array: np.ndarray = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
    return array


def name_of(uri: str) -> str:
    """The last part of a path."""
    return uri.rpartition("/")[2]
