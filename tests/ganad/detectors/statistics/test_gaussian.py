from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from ganad.detectors import configure, create
from ganad.detectors.settings import merge_settings
from ganad.detectors.statistics.config import GaussianConfig
from ganad.detectors.statistics.gaussian import Gaussian
from ganad.errors import ConfigError, TrainingError

DATA = Path(__file__).parents[4].parent / "shared" / "data"
TILES, WEIGHTS = DATA / "magnetic_tile", DATA / "weights" / "tf_efficientnetv2_b0.pth"
SIZE = 32


def build(**values) -> Gaussian:
    backbone = {"name": "test_efficientnet", "weights": "random", **values.pop("backbone", {})}
    config = configure("gaussian", {"image_size": SIZE, "backbone": backbone, **values})
    detector = create("gaussian", config)
    assert isinstance(detector, Gaussian)
    return detector


def draw(num: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    """Smooth coloured noise: images that differ from one another as a whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, channels, 4, 4, generator=generator)
    fine = torch.rand(num, channels, SIZE, SIZE, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (255 * (0.8 * smooth + 0.2 * fine)).to(torch.uint8)


def fitted(images: torch.Tensor, detector: Gaussian | None = None, **values) -> Gaussian:
    detector = detector or build(**values)
    detector.finish(detector.observe(detector.begin(images), images))
    return detector


@pytest.fixture(scope="module")
def detector() -> Gaussian:
    return fitted(draw(100))


def test_score_is_the_sum_over_levels_of_scikit_learns_distances(detector):
    train, test = draw(100), draw(20, seed=1)
    scores = detector.score(test)
    assert list(scores.terms) == ["stem", *(f"blocks.{i}" for i in range(5)), "head"]
    total = np.zeros(20)
    for level, vectors in detector.features(train).items():
        theirs = LedoitWolf().fit(vectors.double().numpy())
        distances = np.sqrt(theirs.mahalanobis(detector.features(test)[level].double().numpy()))
        np.testing.assert_allclose(scores.terms[level], distances, rtol=1e-3)
        total += scores.terms[level]
    np.testing.assert_allclose(scores.score, total, rtol=1e-12)
    assert scores.score.dtype == np.float64
    assert scores.maps is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_score_depends_on_its_image_alone(precision):
    detector = fitted(draw(100), precision=precision)
    images = draw(64, seed=2)
    whole = detector.score(images).score
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(detector.score(images[order]).score, whole[order])
    np.testing.assert_array_equal(detector.score(images[:7]).score, whole[:7])
    np.testing.assert_array_equal(detector.score(images[:1]).score, whole[:1])


def test_scoring_changes_nothing_in_the_model(detector):
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector.train()
    detector.score(draw(5))
    assert detector.training
    assert not detector.extractor.network.training
    for key, value in detector.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_other_images_score_higher(detector):
    normal = detector.score(draw(64, seed=3)).score
    inverted = draw(64, seed=4)
    inverted[:, :, 8:24, 8:24] = 255 - inverted[:, :, 8:24, 8:24] // 4
    labels = np.repeat([0, 1], 64)
    scores = np.concatenate([normal, detector.score(inverted).score])
    assert roc_auc_score(labels, scores) > 0.9


def test_shards_fit_as_the_whole_does(detector):
    images = draw(100)
    other = build()
    parts = [
        other.observe(other.begin(images[shard]), images[shard])
        for shard in np.split(np.random.default_rng(0).permutation(100), [10, 55])
    ]
    other.finish(other.merge(parts))
    test = draw(20, seed=1)
    np.testing.assert_allclose(other.score(test).score, detector.score(test).score, rtol=1e-4)


def test_normal_images_can_be_added_and_taken_away_later():
    images = draw(100)
    detector = fitted(images[:60])
    first = detector.score(images).score
    more = detector.observe(detector.begin(images[60:]), images[60:])
    detector.finish(detector.merge([detector.statistics, more]))
    np.testing.assert_allclose(
        detector.score(images).score, fitted(images).score(images).score, rtol=1e-4
    )
    rest = {name: detector.statistics[name].subtract(more[name]) for name in more}
    detector.finish(rest)
    np.testing.assert_allclose(detector.score(images).score, first, rtol=1e-4)


@pytest.mark.parametrize("reduction", ["pca", "npca"])
def test_reductions_keep_fewer_components(reduction):
    detector = fitted(draw(100), reduction=reduction, explained_variance=0.9)
    for fact in detector.facts()["levels"].values():
        assert 1 <= fact["num_kept"] <= fact["dimension"]
    assert detector.facts()["levels"]["head"]["num_kept"] < 256
    assert np.isfinite(detector.score(draw(3)).score).all()
    assert not np.allclose(detector.score(draw(3)).score, fitted(draw(100)).score(draw(3)).score)


def test_a_saved_model_needs_no_weights_file(tmp_path):
    path = tmp_path / "weights.pth"
    network = build().extractor.network.state_dict()
    torch.save(network, path)
    first = fitted(draw(60), backbone={"weights": str(path)})
    state, config = first.state_dict(), first.config.model_dump(mode="json")
    path.unlink()
    with pytest.raises(ConfigError, match="is not a file"):
        create("gaussian", configure("gaussian", config))
    again = Gaussian.from_saved(GaussianConfig.model_validate(config)).eval()
    again.load_state_dict(state)
    test = draw(9, seed=5)
    np.testing.assert_allclose(again.score(test).score, first.score(test).score, rtol=1e-6)
    assert again.facts() == first.facts()
    assert again.statistics["stem"].n == 60


def test_an_unfitted_model_gives_no_number():
    detector = build()
    assert np.isnan(detector.score(draw(2)).score).all()
    assert list(detector.facts()) == ["weights", "weights_digest"]


def test_facts_name_the_weights_and_the_fit(detector):
    facts = detector.facts()
    assert facts["weights_digest"] == detector.extractor.digest
    assert facts["num_images"] == 100
    assert facts["levels"]["head"]["dimension"] == 256
    assert 0 < facts["levels"]["head"]["shrinkage"] < 1


def test_a_feature_that_is_not_finite_gives_nan_and_no_fit():
    detector = fitted(draw(40))
    with torch.no_grad():
        next(detector.extractor.network.blocks[2].parameters()).fill_(torch.inf)
    detector.load_state_dict(detector.state_dict())  # so that it looks at its weights again
    scores = detector.score(draw(3))
    assert np.isnan(scores.score).all()
    assert np.isfinite(scores.terms["stem"]).all()
    with pytest.raises(TrainingError, match="features at blocks.2 that are not finite"):
        fitted(draw(40), detector)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (draw(1), "gaussian: 1 training images are too few for a covariance: give at least 2"),
        (draw(2), "gaussian: the covariance at stem of 2 training images cannot be inverted"),
        (
            draw(1).expand(20, -1, -1, -1),
            "gaussian: the features at stem are the same for all 20 training images",
        ),
    ],
)
def test_images_that_make_no_covariance_are_refused(images, message):
    with pytest.raises(TrainingError) as error:
        fitted(images)
    assert str(error.value).startswith(message)


def test_grey_images():
    grey = fitted(draw(60, channels=1), channels=1)
    colour = fitted(draw(60, channels=1).expand(-1, 3, -1, -1))
    test = draw(4, 1, channels=1)
    np.testing.assert_allclose(
        grey.score(test).score, colour.score(test.expand(-1, 3, -1, -1)).score, rtol=1e-6
    )


def test_image_size_is_the_networks_own_unless_set():
    assert GaussianConfig().image_size == 224
    assert GaussianConfig().backbone.name == "tf_efficientnet_lite0.in1k"
    paper = configure("gaussian", merge_settings("gaussian", "paper"))
    assert paper.image_size == 380
    small = configure("gaussian", {"backbone": {"name": "tf_efficientnetv2_b0"}})
    assert small.image_size == 224
    assert configure("gaussian", small.model_dump(mode="json")) == small
    assert build(image_size=64).config.image_size == 64


def test_levels_are_words_with_commas_on_a_command_line():
    assert list(build(backbone={"levels": "head,blocks.2"}).levels) == ["blocks.2", "head"]


def test_a_path_holds_in_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configure("gaussian", {"backbone": {"name": "resnet18", "weights": "w.pth"}})
    assert isinstance(config, GaussianConfig)
    assert config.backbone.weights == str(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone": {"nam": "resnet18"}}, "backbone.nam is no key of gaussian: did you mean"),
        ({"backbone": {"name": "resnet81"}}, "backbone.name=resnet81 is not a network that timm"),
        ({"backbone": 3}, "backbone=3 cannot be used for gaussian"),
        ({"backbone": {"levels": []}}, "backbone.levels=[] cannot be used for gaussian"),
        ({"reduction": "ica"}, "reduction='ica' cannot be used for gaussian"),
        ({"explained_variance": 1.0}, "explained_variance=1.0 cannot be used for gaussian"),
    ],
)
def test_wrong_keys_are_told_in_one_sentence(values, message):
    with pytest.raises(ConfigError) as error:
        configure("gaussian", values)
    assert str(error.value).startswith(message)


def read(paths: list[Path]) -> torch.Tensor:
    arrays = [
        np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        for path in paths
    ]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.skipif(
    not (TILES.is_dir() and WEIGHTS.is_file()), reason="../shared/data is not there"
)
def test_defects_of_magnetic_tiles_score_higher():
    """A sixth of the data: 127 images to fit, 32 good ones and 66 defects to tell apart."""
    good = read(sorted((TILES / "test" / "good").iterdir())[::6])
    defects = sorted(path for path in (TILES / "test").glob("*/*") if path.parent.name != "good")
    bad = read(defects[::6])
    detector = fitted(
        read(sorted((TILES / "train" / "good").iterdir())[::6]),
        image_size=224,
        backbone={"name": "tf_efficientnetv2_b0", "weights": str(WEIGHTS)},
    )
    scores = np.concatenate([detector.score(good).score, detector.score(bad).score])
    labels = np.repeat([0, 1], [len(good), len(bad)])
    # These give 0.81, all the data 0.94; chance is 0.5.
    assert roc_auc_score(labels, scores) > 0.75
