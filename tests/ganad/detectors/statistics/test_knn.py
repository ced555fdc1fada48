from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from ganad.detectors import configure, create
from ganad.detectors.statistics import knn
from ganad.detectors.statistics.gaussian import Level
from ganad.detectors.statistics.knn import Knn, nearest
from ganad.errors import ConfigError, TrainingError
from ganad.features.moments import Moments

SIZE = 32


def build(**values: Any) -> Knn:
    backbone = {"name": "resnet18", "weights": "random", **values.pop("backbone", {})}
    config = configure("knn", {"image_size": SIZE, "backbone": backbone, **values})
    detector = create("knn", config)
    assert isinstance(detector, Knn)
    return detector


def draw(num: int, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise: images that differ from one another as a whole."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    fine = torch.rand(num, 3, SIZE, SIZE, generator=generator)
    return (255 * (0.8 * smooth + 0.2 * fine)).to(torch.uint8)


def fitted(images: torch.Tensor, **values: Any) -> Knn:
    detector = build(**values)
    detector.finish(detector.observe(detector.begin(images), images))
    return detector


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_score_is_the_sum_over_levels_of_scikit_learns_distances(
    metric: str, aggregation: str
) -> None:
    train, test = draw(60), draw(20, seed=1)
    detector = fitted(train, k=3, metric=metric, aggregation=aggregation)
    scores = detector.score(test)
    assert list(scores.terms) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    total = np.zeros(20)
    seen, unseen = detector.features(train), detector.features(test)
    for level in seen:
        lower = np.linalg.cholesky(LedoitWolf().fit(seen[level].double()).covariance_)
        known, asked = (
            np.linalg.solve(lower, vectors[level].double().numpy().T).T
            for vectors in (seen, unseen)
        )
        index = NearestNeighbors(n_neighbors=3, metric=metric, algorithm="brute").fit(known)
        distances, _ = index.kneighbors(asked)
        if metric == "cosine":
            distances = np.sqrt(2 * distances) * np.linalg.norm(known, axis=1).mean()
        expected = distances.mean(1) if aggregation == "mean" else distances.max(1)
        np.testing.assert_allclose(scores.terms[level], expected, rtol=1e-4)
        total += scores.terms[level]
    np.testing.assert_allclose(scores.score, total, rtol=1e-12)


@pytest.mark.parametrize("block", [1, 4, 33, 1000])
def test_blocks_find_the_neighbours_that_the_whole_has(block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(100, 5, generator=generator)
    queries = torch.randn(9, 5, generator=generator)
    _, expected = NearestNeighbors(n_neighbors=6).fit(vectors).kneighbors(queries)
    np.testing.assert_array_equal(nearest(queries, vectors, 6, block), expected)


def test_a_training_image_has_itself_for_a_neighbour() -> None:
    images = draw(40)
    detector = fitted(images, k=1)
    assert (detector.score(images).score == 0).all()
    assert (detector.score(draw(5, seed=1)).score > 0).all()


def test_cosine_leaves_out_the_strength_of_features() -> None:
    for metric in ("euclidean", "cosine"):
        level = fitted(draw(40), metric=metric).levels["layer4"]
        vectors = torch.rand(3, 512)
        near = level(vectors, 1, metric, "mean")
        same = torch.allclose(level(3 * vectors, 1, metric, "mean"), near, rtol=1e-4)
        assert same == (metric == "cosine")


def test_what_lies_between_two_kinds_of_normal_vectors_is_normal_to_a_gaussian_only() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1000, 4, generator=generator)
    vectors[:, 0] += torch.tensor([-10.0, 10.0]).repeat(500)
    between = torch.zeros(1, 4)
    neighbours, gaussian = knn.Level(4), Level(4)
    neighbours.fit(vectors, "euclidean")
    gaussian.fit(Moments.empty(vectors.mean(0)).add(vectors), "none", 0.99)
    normal = neighbours(vectors, 2, "euclidean", "max")  # the first neighbour is itself
    assert neighbours(between, 2, "euclidean", "mean") > normal.quantile(0.95)
    assert gaussian(between) < gaussian(vectors).min()


def test_facts_name_the_fit() -> None:
    facts = fitted(draw(40)).facts()
    assert (facts["num_images"], facts["num_kept"]) == (40, 40)
    assert facts["levels"]["layer4"]["dimension"] == 512
    assert 0 < facts["levels"]["layer4"]["shrinkage"] <= 1


def test_more_neighbours_than_images() -> None:
    with pytest.raises(TrainingError) as error:
        fitted(draw(4), k=5)
    assert str(error.value) == (
        "k=5 is more than the 4 training images: give more images, or set k to 4 or less"
    )
    assert np.isfinite(fitted(draw(4), k=4).score(draw(2)).score).all()


def test_two_images_make_no_covariance() -> None:
    with pytest.raises(TrainingError, match="knn: the covariance at stem of 2 training images"):
        fitted(draw(2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "k=0 cannot be used for knn"),
        ({"k": 9, "max_images": 8}, "k=9 is more than max_images=8: set k to 8 or less"),
        ({"metric": "manhattan"}, "metric='manhattan' cannot be used for knn"),
        ({"aggregate": "max"}, "aggregate is no key of knn: did you mean aggregation?"),
    ],
)
def test_wrong_keys_are_told_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        configure("knn", values)
    assert str(error.value).startswith(message)
