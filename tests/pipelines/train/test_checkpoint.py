from pathlib import Path

import pytest
import ray.train
import torch

from pipelines.train.checkpoint import DIGEST, STATE, read_checkpoint, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def latest(tmp_path: Path) -> ray.train.Checkpoint:
    """The last of three checkpoints, beside a folder that is none."""
    (tmp_path / "other").mkdir()
    for step in (200, 400, 600):
        folder = tmp_path / f"step_{step:08d}"
        folder.mkdir()
        checkpoint = write_checkpoint(str(folder), {"step": step, "w": torch.full((99,), 1.0)})
    return checkpoint


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_the_latest_whole_checkpoint_is_read(latest: ray.train.Checkpoint) -> None:
    said: list[str] = []
    folder, expected = Path(latest.path), [600, 400, 200, None]
    parts = [(600, STATE), (400, DIGEST), (200, STATE)]
    for step, (broken, file) in zip(expected, [*parts, (None, None)], strict=True):
        found = read_checkpoint(latest, CPU, said.append)
        assert (found and found["step"]) == step
        if broken is not None:
            damage(folder.with_name(f"step_{broken:08d}") / str(file))
    assert len(said) == 1 + 2 + 3
    assert said[0] == f"{latest.path}: is damaged; continuing from the one before it"


def test_a_checkpoint_of_an_earlier_version_has_no_digest(latest: ray.train.Checkpoint) -> None:
    (Path(latest.path) / DIGEST).unlink()
    found = read_checkpoint(latest, CPU, pytest.fail)
    assert found is not None
    assert found["step"] == 600
    (Path(latest.path) / STATE).unlink()
    found = read_checkpoint(latest, CPU, str)
    assert found is not None
    assert found["step"] == 400
