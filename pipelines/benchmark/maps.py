"""Detectors over dense maps, beside the forward pass that makes the maps. Run: ganad benchmark maps

In each round the bare network, cut off behind the last stage used, and the whole score of the same
batch take turns, and anomalib's detector with the same weights where a python that has it is given.
On processors seconds are of the processor, so that others who use the machine do not count.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ganad.archive.listing import list_images
from ganad.detectors import configure, create
from ganad.detectors.maps.config import PadimConfig
from ganad.detectors.maps.mapped import MapDetector
from ganad.detectors.settings import merge_settings
from ganad.errors import ConfigError
from ganad.images.decode import Preprocessing
from ganad.images.inputs import from_rows
from ganad.images.shards import Shards
from ganad.training.fit import fit_statistics
from pipelines.benchmark.processes import measured

DETECTORS = ("padim", "patchcore")
NUM_ANOMALIB = 128
"""Images that anomalib's models are fitted to, which hold the vectors of all of them in memory."""
FIT = """
import sys
from pipelines.benchmark.maps import fit_alone
fit_alone(*sys.argv[1:])
"""
FACTS = ("places", "fitted", "fit_s", "fit_peak", "half_peak")
Rows = list[dict[str, Any]]


def maps(
    source: str,
    settings: Sequence[str] = (),
    *,
    detectors: Sequence[str] = DETECTORS,
    num: int | None = None,
    rounds: int = 7,
    cores: int = 1,
    anomalib: str | None = None,
) -> Rows:
    """Fit each detector to normal images, and time its scores; settings are config keys of all.

    num: images at most. images_per_s are of one core; share: of the network's rate, the median
    over rounds. fit_s: seconds of the processor beside the network's, fit_peak: MiB at the most in
    a process that does nothing else, half_peak: the same for half of the images. Raises ConfigError
    for a detector without maps, and for a python without anomalib.
    """
    torch.set_num_threads(cores)
    rows: Rows = []
    for name in detectors:
        values = merge_settings(name, assignments=settings)
        detector = create(name, configure(name, values))
        if not isinstance(detector, MapDetector):
            raise ConfigError(f"{name} has no maps: give some of {', '.join(DETECTORS)}")
        images = np.concatenate(list(_pieces(detector, source, num)))
        with tempfile.TemporaryDirectory() as folder:
            few, every = (
                _fit_apart(name, values, source, n, cores, folder)
                for n in (max(2, len(images) // 2), len(images))
            )
            known = {"places": detector.maps.grid**2, "fitted": len(images)}
            facts = {name: {**known, **every, "half_peak": few["fit_peak"]}}
            fit_statistics(detector, Shards([images[:NUM_ANOMALIB]]))
            turns = _turns(detector, images, cores)
            with _anomalib(anomalib, detector, images, Path(folder), cores) as theirs:
                if theirs is not None:
                    turns["anomalib"] = theirs.score
                    facts["anomalib"] = theirs.facts
                seconds = [{way: turn() for way, turn in turns.items()} for _ in range(rounds + 1)]
        for way in turns:
            spent = [one[way] for one in seconds[1:]]  # the first round warms up
            shares = [one["bare network"] / one[way] for one in seconds[1:]]
            rate, share = detector.scoring_batch / median(spent), median(shares)
            row = {"detector": name, "way": way, "images_per_s": round(rate, 1)}
            row |= {"share": round(share, 3)}
            rows.append(row | {key: facts.get(way, {}).get(key) for key in FACTS})
    return rows


def fit_alone(name: str, values: str, source: str, num: str, cores: str, out: str) -> None:
    """Fit to the first num images of source as a job does it, piece by piece; write to the file
    out what it took. The arguments are words of a command line."""
    torch.set_num_threads(int(cores))
    detector = create(name, configure(name, json.loads(values)))
    assert isinstance(detector, MapDetector)
    spent, began = [0.0], [0.0]
    detector.maps.register_forward_pre_hook(lambda *_: began.__setitem__(0, time.process_time()))
    detector.maps.register_forward_hook(
        lambda *_: spent.__setitem__(0, spent[0] + time.process_time() - began[0])
    )
    statistics, begun, whole = None, None, 0.0
    for piece in _pieces(detector, source, int(num)):
        started = time.process_time()
        images = torch.from_numpy(piece)
        begun = detector.begin(images) if begun is None else begun
        seen = detector.observe(begun, images)
        statistics = seen if statistics is None else detector.merge([statistics, seen])
        whole += time.process_time() - started
    started = time.process_time()
    detector.finish(statistics)
    whole += time.process_time() - started
    Path(out).write_text(json.dumps({"fit_s": round((whole - spent[0]) / int(cores), 1)}))


def _fit_apart(
    name: str, values: Mapping[str, Any], source: str, num: int, cores: int, folder: str
) -> dict[str, Any]:
    out = Path(folder) / "fit.json"
    words = [name, json.dumps(values), source, str(num), str(cores), str(out)]
    _, peak = measured(["-c", FIT, *words])
    found: dict[str, Any] = json.loads(out.read_text())
    return {**found, "fit_peak": round(peak)}


def _pieces(detector: MapDetector[Any, Any], source: str, num: int | None) -> Iterator[np.ndarray]:
    config = detector.config
    preprocessing = Preprocessing(image_size=config.image_size, channels=config.channels)
    for decoded, _ in from_rows(islice(list_images([source]), num), preprocessing):
        yield np.stack([one.image for one in decoded if one.image is not None])


def _turns(
    detector: MapDetector[Any, Any], images: np.ndarray, cores: int
) -> dict[str, Callable[[], float]]:
    """By way, a function that does it with the first batch and returns its seconds."""
    on_gpu = torch.cuda.is_available()
    detector.to("cuda" if on_gpu else "cpu")
    batch = torch.from_numpy(_repeated(images, detector.scoring_batch))
    prepared = detector.prepare(batch)

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def turn() -> float:
            clock = time.perf_counter if on_gpu else time.process_time
            began = clock()
            work()
            if on_gpu:
                torch.cuda.synchronize()
            return (clock() - began) / (1 if on_gpu else cores)

        return turn

    def bare() -> None:
        with torch.no_grad(), detector.autocast():
            detector.maps.extractor.maps(prepared)

    return {"bare network": timed(bare), detector.name: timed(lambda: detector.score(batch))}


def _repeated(images: np.ndarray, num: int) -> np.ndarray:
    """The first num images, or again from the first one where they are fewer."""
    return np.resize(images, (num, *images.shape[1:]))


class _Anomalib:
    """anomalib's detector in a process of its own, fitted, that scores a batch when asked to."""

    def __init__(self, process: subprocess.Popen[str], facts: dict[str, Any]) -> None:
        self.process, self.facts = process, facts

    def score(self) -> float:
        """Seconds of a batch."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


@contextmanager
def _anomalib(
    python: str | None,
    detector: MapDetector[Any, Any],
    images: np.ndarray,
    folder: Path,
    cores: int,
) -> Iterator[_Anomalib | None]:
    """None without a python. Raises ConfigError for one without anomalib."""
    if python is None:
        yield None
        return
    program = Path(__file__).with_name("anomalib_maps.txt").read_text()
    extractor, config = detector.maps.extractor, detector.config
    beside = {"mean": extractor.mean, "std": extractor.std}
    torch.save({**extractor.network.state_dict(), **beside}, folder / "weights.pt")
    np.save(folder / "normal.npy", _repeated(images, NUM_ANOMALIB))
    size = config.num_channels if isinstance(config, PadimConfig) else config.entries
    stages = ",".join(extractor.dimensions)
    words = [detector.name, str(folder), str(cores), extractor.name, stages, str(size)]
    with (
        open(folder / "said", "w+") as said,
        subprocess.Popen(
            [python, "-W", "ignore", "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        found = next((line for line in process.stdout if line.startswith("{")), None)
        if found is None:
            said.seek(0)
            last = said.read().strip().rpartition("\n")[2]
            raise ConfigError(
                f"--anomalib {python} does not fit anomalib's {detector.name} ({last}): name the "
                f"python of an environment in which pip install anomalib was run"
            )
        yield _Anomalib(process, json.loads(found))
        process.stdin.close()  # type: ignore[union-attr]
