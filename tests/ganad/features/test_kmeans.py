import numpy as np
import torch
from sklearn.cluster import KMeans

from ganad.features.kmeans import Sums, first_centres, kmeans, squared_distances


def blobs(num: int = 300) -> torch.Tensor:
    """Vectors around four corners of a square."""
    rng = np.random.default_rng(0)
    corners = 10 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return torch.from_numpy(corners[rng.integers(4, size=num)] + rng.normal(size=(num, 2)))


def test_sums_of_shards_merge_in_any_order_to_those_of_all() -> None:
    vectors = blobs()
    centres = first_centres(vectors, 4, seed=0)
    whole = Sums.of(vectors, centres)
    parts = [Sums.of(part, centres) for part in vectors.split([20, 180, 100])]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = Sums.merge(parts[i] for i in order)
        torch.testing.assert_close(merged.counts, whole.counts)
        torch.testing.assert_close(merged.totals, whole.totals)
        np.testing.assert_allclose(merged.cost, whole.cost)


def test_the_cost_is_that_of_scikit_learn() -> None:
    vectors = blobs()
    centres = kmeans(vectors, 4, seed=0)
    theirs = KMeans(4, n_init=10, random_state=0).fit(vectors.numpy())
    found = float(squared_distances(vectors, centres).amin(1).sum())
    np.testing.assert_allclose(found, theirs.inertia_, rtol=1e-3)
    assert torch.equal(centres, kmeans(vectors, 4, seed=0))


def test_copies_are_not_drawn_twice() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(5, 1)
    centres = kmeans(vectors, 4, seed=0)
    assert sorted(centres.tolist()) == [[1.0, 2.0], [3.0, 4.0]]


def test_a_centre_without_vectors_stays_where_it_was() -> None:
    centres = torch.tensor([[0.0, 0.0], [100.0, 100.0]])
    sums = Sums.of(torch.tensor([[1.0, 1.0], [3.0, 1.0]]), centres)
    assert sums.centres(centres).tolist() == [[2.0, 1.0], [100.0, 100.0]]
