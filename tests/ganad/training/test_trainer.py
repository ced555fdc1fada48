"""The training loop."""

import math
import threading

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create
from ganad.detectors.gradient import GradientDetector
from ganad.errors import TrainingError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import GRADIENT, InMemory, random_images, small


class Images:
    """Grey squares, each of its own level, so that a batch shows which images it holds."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.taken: list[list[int]] = []

    def __len__(self) -> int:
        return self.num

    def take(self, positions: np.ndarray) -> np.ndarray:
        self.taken.append(positions.tolist())
        levels = positions.astype(np.uint8)[:, None, None, None]
        return np.broadcast_to(levels, (len(positions), 1, 16, 16)).copy()


def detector(**keys: object) -> GradientDetector:  # type: ignore[type-arg]
    values = {"image_size": 16, "channels": 1, "width": 4, "latent": 4, "batch_size": 8}
    made = create("ganomaly", configure("ganomaly", {**values, "epochs": 2, **keys}))
    assert isinstance(made, GradientDetector)
    return made


def test_an_epoch_takes_each_image_once_in_an_order_of_its_own() -> None:
    images = Images(32)
    list(Trainer(detector(), images).run())
    first, second = (sum(images.taken[i : i + 4], []) for i in (0, 4))
    assert sorted(first) == sorted(second) == list(range(32))
    assert first != second


def test_ranks_share_each_batch_of_the_one_order() -> None:
    trainer = Trainer(detector(), Images(32))
    ranks = [Trainer(detector(), Images(32), rank=rank, num_ranks=3) for rank in range(3)]
    for number in range(4):
        parts = [rank._chosen(0, number).tolist() for rank in ranks]
        assert sorted(sum(parts, [])) == sorted(trainer._chosen(0, number).tolist())


def test_progress_reports_losses_at_the_end_of_each_epoch() -> None:
    seen = list(Trainer(detector(), Images(32)).run())
    assert [p.step for p in seen] == list(range(1, 9))
    assert [p.step for p in seen if p.epoch_ended] == [4, 8]
    assert all(math.isfinite(loss) for loss in seen[-1].losses.values())
    assert seen[-1].images_per_second > 0


class Broken(Images):
    """Storage that fails at the third batch."""

    def take(self, positions: np.ndarray) -> np.ndarray:
        if len(self.taken) == 2:
            raise TrainingError("the third batch")
        return super().take(positions)


def test_a_batch_is_taken_by_a_thread_that_ends_with_the_run() -> None:
    class Watched(Images):
        def take(self, positions: np.ndarray) -> np.ndarray:
            names.add(threading.current_thread().name)
            return super().take(positions)

    before, names = set(threading.enumerate()), set[str]()
    list(Trainer(detector(), Watched(32)).run())
    assert len(names) == 1
    assert names != {threading.current_thread().name}
    assert set(threading.enumerate()) <= before


def test_an_error_of_a_batch_comes_at_its_step() -> None:
    before, trainer = set(threading.enumerate()), Trainer(detector(), Broken(32))
    with pytest.raises(TrainingError, match="^the third batch$"):
        list(trainer.run())
    assert trainer.step == 2
    assert set(threading.enumerate()) <= before


def test_a_run_that_is_left_and_resumed_takes_the_batches_of_a_whole_one() -> None:
    whole, first, second = Images(32), Images(32), Images(32)
    list(Trainer(detector(), whole).run())
    left = Trainer(detector(), first)
    steps = left.run()
    for _ in range(3):
        next(steps)
    state = left.state()
    steps.close()  # type: ignore[attr-defined]
    assert first.taken[:3] == whole.taken[:3]
    assert not [one for one in threading.enumerate() if one.name.startswith("ganad-ahead")]
    resumed = Trainer(detector(), second)
    resumed.restore(state)
    list(resumed.run())
    assert second.taken == whole.taken[3:]


def test_nan_is_refused_with_the_step() -> None:
    model = detector()
    trainer = Trainer(model, Images(32))
    with torch.no_grad():
        model.decoder[0].weight.fill_(math.nan)  # type: ignore[index, union-attr, operator]
    with pytest.raises(TrainingError, match="loss became nan between steps 0 and 4"):
        list(trainer.run())


def test_too_few_images_are_refused() -> None:
    with pytest.raises(TrainingError, match="^3 training images .* 4 workers"):
        Trainer(detector(), Images(3), num_ranks=4)
    with pytest.raises(TrainingError, match="^1 training images .* 1 workers"):
        Trainer(detector(), Images(1))


def test_the_losses_of_200_steps_in_bfloat16_stay_near_those_in_float32() -> None:
    curves: dict[str, dict[str, np.ndarray]] = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(detector(precision=precision, epochs=50), Images(32))
        assert trainer.total == 200
        epochs = [progress.losses for progress in trainer.run() if progress.epoch_ended]
        curves[precision] = {name: np.array([one[name] for one in epochs]) for name in epochs[0]}
    for name, exact in curves["float32"].items():
        rounded = curves["bfloat16"][name]
        # At every epoch, beside the size that the loss has over the run.
        assert np.abs(rounded - exact).max() < 0.25 * exact.max(), name
        assert rounded.mean() == pytest.approx(exact.mean(), rel=0.1), name
    generator = [curves[precision]["generator"] for precision in ("float32", "bfloat16")]
    np.testing.assert_allclose(generator[1], generator[0], rtol=0.03)


@pytest.mark.parametrize("name", GRADIENT)
def test_fused_steps_are_those_of_plain_adam(name: str) -> None:
    """However gradients lie in memory: those of a gradient penalty lie otherwise than weights."""
    found = []
    for fused in (True, False):
        model = small(name, epochs=2, **({"classes": ["a", "b"]} if name == "acgan" else {}))
        assert isinstance(model, GradientDetector)
        trainer = Trainer(model, InMemory(random_images(8)), labels=["a", "b"] * 4)
        for optimizer in trainer.optimizers.values():
            for group in optimizer.param_groups:
                group["fused"] = fused
        list(trainer.run())
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    rate = model.config.learning_rate
    # All but the few whose gradient is zero but for rounding, of which Adam makes whole steps.
    assert ((found[0] - found[1]).abs() > rate / 10).float().mean() < 0.02
