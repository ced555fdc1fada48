import numpy as np
import torch

from ganad.detectors.maps.coreset import greedy
from ganad.detectors.maps.patchcore import GATHERED, Patchcore
from tests.ganad.detectors.maps.test_mapped import build, draw, fitted


def spread(num: int, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    clusters = 5 * torch.randn(20, width, generator=generator)
    return clusters.repeat(num // 20, 1) + torch.randn(num, width, generator=generator)


def plain(vectors: torch.Tensor, k: int) -> list[int]:
    """The greedy algorithm as it is written down."""
    chosen = [int((vectors - vectors.mean(0)).norm(dim=1).argmax())]
    while len(chosen) < k:
        chosen.append(int(torch.cdist(vectors, vectors[chosen]).amin(1).argmax()))
    return chosen


def test_large_strides_choose_what_single_steps_choose() -> None:
    vectors = spread(3000)
    assert greedy(vectors, 150).tolist() == plain(vectors, 150)


def test_copies_are_chosen_once() -> None:
    vectors = spread(40).repeat(50, 1)
    chosen = greedy(vectors, 200)
    assert len(vectors[chosen].unique(dim=0)) == len(chosen) == 40


def test_a_coreset_of_coresets_covers_nearly_as_well() -> None:
    vectors = spread(4000)

    def radius(chosen: torch.Tensor) -> float:
        return float(torch.cdist(vectors, chosen).amin(1).max())

    at_once = vectors[greedy(vectors, 100)]
    parts = torch.cat([part[greedy(part, 100)] for part in vectors.split(500)])
    assert radius(parts[greedy(parts, 100)]) < 1.5 * radius(at_once)


def test_memory_is_bounded_whatever_the_number_of_images() -> None:
    detector = build("patchcore", entries=50)
    assert isinstance(detector, Patchcore)
    images = draw(30)
    start = detector.begin(images)
    parts = [detector.observe(start, images[i : i + 5]) for i in range(0, 30, 5)]
    assert all(len(part.vectors) == 50 for part in parts)
    merged = parts[0]
    for part in parts[1:]:
        merged = detector.merge([merged, part])
        assert len(merged.vectors) <= GATHERED * 50
    facts = detector.finish(merged)
    assert (facts["num_images"], facts["num_entries"]) == (30, 50)


def test_the_score_is_that_of_equation_7() -> None:
    images = draw(12)
    detector = fitted("patchcore", images, neighbours=4)
    assert isinstance(detector, Patchcore)
    test = draw(3, seed=1)
    vectors = detector._vectors(detector.raw_maps(test)).double()
    memory = detector.memory.double()
    for one, score in zip(vectors, detector.score(test).score, strict=True):
        distances = torch.cdist(one, memory)
        worst = int(distances.amin(1).argmax())
        entry = int(distances[worst].argmin())
        around = (memory - memory[entry]).norm(dim=1).topk(4, largest=False).indices
        weight = 1 - distances[worst, entry].exp() / distances[worst, around].exp().sum()
        np.testing.assert_allclose(score, weight * distances[worst, entry], rtol=1e-4)


def test_a_place_of_the_memory_is_at_distance_nought() -> None:
    images = draw(4)
    detector = fitted("patchcore", images, entries=10_000)
    assert isinstance(detector, Patchcore)
    assert len(detector.memory) == 4 * 8 * 8
    places, _ = detector.score_places(detector.raw_maps(images))
    assert places.max() < 0.05
