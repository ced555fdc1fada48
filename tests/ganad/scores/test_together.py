"""Models with the same backbone share its pass, and their scores are those of each by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ganad import fit
from ganad.archive.listing import list_images
from ganad.features.backbone import FeatureExtractor
from ganad.images.load import load_images
from ganad.model import Model, load
from ganad.scores.rows import score_rows
from ganad.scores.together import groups, score_together

BACKBONE = {"name": "test_efficientnet", "weights": "random"}
KEYS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "knn": {"k": 2},
    "patchcore": {"entries": 50},
    "ganomaly": {"epochs": 1, "width": 4, "latent": 4},
}


@pytest.fixture(scope="module")
def saved(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Detector -> a small trained model."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, keys in KEYS.items():
        values = {"image_size": 32, "channels": 3, **keys}
        values |= {} if name == "ganomaly" else {"backbone": BACKBONE}
        found[name] = fit(name, image_folder / "train", **values).save(str(folder / name))
    return found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The levels of each forward pass of a backbone over a batch."""
    made: list[list[str]] = []
    run = FeatureExtractor._run

    def counted(
        self: FeatureExtractor,
        network: Any,
        images: Any,
        levels: list[str],
        take: Callable[..., Any],
    ) -> Any:
        # A single one is looked at to fold batch-norms, and those on "meta" for their shapes.
        if len(images) > 1 and images.device.type == "cpu":
            made.append(levels)
        return run(self, network, images, levels, take)

    monkeypatch.setattr(FeatureExtractor, "_run", counted)
    return made


def inputs(model: Model, folder: Path, tmp_path: Path) -> tuple[list[Any], list[Any]]:
    """70 rows and their decoded images, every seventh of which cannot be read."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    rows = [*list_images([str(folder)])]
    (broken,) = list_images([str(bad)])
    rows = [broken if place % 7 == 0 else rows[place % len(rows)] for place in range(70)]
    return rows, [one for (one,) in load_images(rows, [model.preprocessing])]


def without_time(table: pa.Table) -> pa.Table:
    return table.drop_columns(["scored_at"])


def test_scores_are_equal_to_the_last_bit_and_the_backbone_runs_once(
    saved: dict[str, str], passes: list[list[str]], image_folder: Path, tmp_path: Path
) -> None:
    names = ["gaussian", "knn", "patchcore"]
    alone = [load(saved[name]) for name in names]
    rows, decoded = inputs(alone[0], image_folder, tmp_path)
    expected = [score_rows(model, rows, decoded) for model in alone]
    num_alone = len(passes)
    passes.clear()

    models = [load(saved[name]) for name in names]
    assert groups(models) == [[0, 1, 2]]
    together = score_together(models, rows, decoded)
    for found, one in zip(together, expected, strict=True):
        assert without_time(found.rows).equals(without_time(one))
        assert found.seconds > 0
    batches = 2  # 60 images can be read
    assert num_alone == 3 * batches
    # In the first batch, nobody knows yet that patchcore will ask for maps.
    assert len(passes) == batches + 1


def test_a_gan_another_size_windows_and_a_compiled_pass_share_nothing(
    saved: dict[str, str], image_folder: Path
) -> None:
    gaussian, knn, gan = (load(saved[name]) for name in ("gaussian", "knn", "ganomaly"))
    assert groups([gan, gaussian, knn]) == [[0], [1, 2]]
    larger = fit("gaussian", image_folder / "train", image_size=40, backbone=BACKBONE)
    assert groups([gaussian, larger]) == [[0], [1]]
    cut = fit(
        "knn", image_folder / "train", image_size=32, k=2, backbone=BACKBONE, patch={"size": 16}
    )
    assert groups([gaussian, cut]) == [[0], [1]]
    knn.detector.engine = lambda images, ids, maps: knn.detector.score_batch(images, ids, maps)
    assert groups([gaussian, knn]) == [[0], [1]]


def test_other_weights_share_nothing(saved: dict[str, str], image_folder: Path) -> None:
    other = fit("knn", image_folder / "train", image_size=32, k=2, backbone=BACKBONE, seed=1)
    assert groups([load(saved["gaussian"]), other]) == [[0], [1]]
    assert other.detector.extractor.shared is None


def test_a_model_alone_gives_what_it_gives_in_a_group(
    saved: dict[str, str], image_folder: Path, tmp_path: Path
) -> None:
    """The others' files are there already after a crash."""
    models = [load(saved[name]) for name in ("gaussian", "knn")]
    groups(models)
    rows, decoded = inputs(models[0], image_folder, tmp_path)
    expected = score_together(models, rows, decoded)[1].rows
    found = score_together(models[1:], rows, decoded)[0].rows
    assert without_time(found).equals(without_time(expected))
