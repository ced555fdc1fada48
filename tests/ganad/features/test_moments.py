import pickle

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from ganad.features.moments import (
    Moments,
    ShrunkCovariance,
    chi_square_quantiles,
    cholesky_whitening,
    ledoit_wolf,
    merge,
    principal_whitening,
)

SIZES = [(200, 272), (200, 48), (300, 1792), (5000, 64)]


def draw(n: int, p: int, seed: int = 0) -> torch.Tensor:
    """Correlated vectors of unequal scales, far from the origin, as pooled features are."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(p, p)) * np.geomspace(1, 0.01, p)
    return torch.from_numpy(rng.exponential(size=(n, p)) @ mixing + 5)


def summed(vectors: torch.Tensor, batch: int = 64, x0: torch.Tensor | None = None) -> Moments:
    moments = Moments.empty(vectors[:batch].mean(0) if x0 is None else x0)
    for part in vectors.split(batch):
        moments = moments.add(part)
    return moments


def assert_same(ours: ShrunkCovariance, theirs: LedoitWolf) -> None:
    scale = np.abs(theirs.covariance_).max()
    np.testing.assert_allclose(ours.matrix.numpy(), theirs.covariance_, atol=1e-10 * scale)
    np.testing.assert_allclose(ours.mean.numpy(), theirs.location_, rtol=1e-10)
    assert ours.shrinkage == pytest.approx(theirs.shrinkage_, rel=1e-10, abs=1e-13)


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_equals_scikit_learn(n, p):
    vectors = draw(n, p)
    assert_same(ledoit_wolf(summed(vectors)), LedoitWolf().fit(vectors.numpy()))


def test_float32_features_are_summed_in_float64():
    vectors = draw(300, 20).float()
    assert_same(ledoit_wolf(summed(vectors)), LedoitWolf().fit(vectors.double().numpy()))


@pytest.mark.parametrize("seed", range(4))
def test_shards_merge_in_any_order_each_with_its_own_origin(seed):
    vectors = draw(500, 40)
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(1, 500), 6, replace=False))
    shards = np.split(rng.permutation(500), cuts)
    parts = [summed(vectors[shard], 32) for shard in shards]
    assert len({float(part.x0[0]) for part in parts}) == len(parts)
    assert_same(ledoit_wolf(merge(parts)), LedoitWolf().fit(vectors.numpy()))


def test_an_empty_shard_adds_nothing():
    vectors = draw(100, 8)
    whole = summed(vectors)
    merged = merge([Moments.empty(vectors[0]), whole, Moments.empty(vectors[1])])
    assert merged.n == 100
    assert_same(ledoit_wolf(merged), LedoitWolf().fit(vectors.numpy()))


def test_merging_changes_no_part():
    parts = [summed(draw(50, 5, seed)) for seed in (1, 2)]
    before = [part.to_arrays() for part in parts]
    merge(parts)
    for part, arrays in zip(parts, before, strict=True):
        assert part.n == arrays["n"]
        np.testing.assert_array_equal(part.s2.numpy(), arrays["s2"])


def test_vectors_can_be_taken_away_again():
    vectors = draw(400, 30)
    rest = summed(vectors).subtract(summed(vectors[:150]))
    assert rest.n == 250
    assert_same(ledoit_wolf(rest), LedoitWolf().fit(vectors[150:].numpy()))


def test_more_than_there_are_cannot_be_taken_away():
    with pytest.raises(ValueError, match="12 vectors cannot be taken from 10"):
        summed(draw(10, 3)).subtract(summed(draw(12, 3)))


def test_a_far_origin_is_exact_as_algebra():
    vectors = draw(60, 6)
    near = summed(vectors)
    there = near.about(near.x0 + 3)
    direct = summed(vectors, x0=near.x0 + 3)
    for name, array in direct.to_arrays().items():
        np.testing.assert_allclose(there.to_arrays()[name], array, rtol=1e-10)


def test_arrays_and_pickles_come_back():
    moments = summed(draw(30, 4))
    for copy in (Moments.from_arrays(moments.to_arrays()), pickle.loads(pickle.dumps(moments))):
        assert copy.to_arrays().keys() == moments.to_arrays().keys()
        for name, array in moments.to_arrays().items():
            np.testing.assert_array_equal(copy.to_arrays()[name], array)


@pytest.mark.parametrize(("n", "p"), SIZES)
def test_whitened_length_is_the_mahalanobis_distance(n, p):
    vectors, others = draw(n, p), draw(50, p, seed=1)
    fit = ledoit_wolf(summed(vectors))
    whitened = (others - fit.mean) @ cholesky_whitening(fit.matrix).T
    expected = LedoitWolf().fit(vectors.numpy()).mahalanobis(others.numpy())
    np.testing.assert_allclose(whitened.square().sum(1).numpy(), expected, rtol=1e-8)


def test_two_vectors_and_constant_ones_are_singular():
    for vectors in (draw(2, 5), torch.ones(20, 5)):
        with pytest.raises(np.linalg.LinAlgError):
            cholesky_whitening(ledoit_wolf(summed(vectors)).matrix)


@pytest.mark.parametrize(("n", "p"), [(400, 30), (20, 30)])
@pytest.mark.parametrize("keep", ["pca", "npca"])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99, 0.9999])
def test_principal_components_equal_scikit_learn(n, p, keep, share):
    vectors, others = draw(n, p), draw(40, p, seed=1)
    fit = ledoit_wolf(summed(vectors))
    whitening = principal_whitening(fit, keep, share)
    ours = ((others - fit.mean) @ whitening.T).square().sum(1).numpy()

    # The eigenvectors of the shrunk covariance are those of the sample's; PCA alone leaves out
    # the directions without any variance, n ≤ p.
    theirs = LedoitWolf().fit(vectors.numpy())
    values, axes = np.linalg.eigh(theirs.covariance_)
    values, axes = values[::-1], axes[:, ::-1]
    ratios = PCA().fit(vectors.numpy()).explained_variance_ratio_
    j = int(np.argmax(np.cumsum(ratios) > share))
    chosen = slice(0, j + 1) if keep == "pca" else slice(max(j - 1, 0), p)
    projected = (others.numpy() - theirs.location_) @ axes[:, chosen]
    np.testing.assert_allclose(ours, (projected**2 / values[chosen]).sum(1), rtol=1e-6)
    assert len(whitening) == len(range(p)[chosen])


def test_a_first_component_with_all_the_variance_keeps_every_component_in_npca():
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3)))
    vectors[:, 0] *= 1000
    fit = ledoit_wolf(summed(vectors))
    assert principal_whitening(fit, "npca", 0.9).shape == (3, 3)
    assert principal_whitening(fit, "pca", 0.9).shape == (1, 3)


def test_held_out_distances_of_gaussian_data_follow_chi_square():
    p, n = 40, 20_000
    rng = np.random.default_rng(0)
    mixing = np.eye(p) + rng.normal(size=(p, p)) / 20
    fitted = torch.from_numpy(rng.normal(size=(n, p)) @ mixing)
    held_out = torch.from_numpy(rng.normal(size=(n, p)) @ mixing)
    fit = ledoit_wolf(summed(fitted, 1000))
    distances = ((held_out - fit.mean) @ cholesky_whitening(fit.matrix).T).norm(dim=1).numpy()
    expected, seen = chi_square_quantiles(distances, p)
    # A share of 1 % of 20,000 has a standard error of 0.07 %.
    assert np.mean(seen > chi2.ppf(0.99, p)) == pytest.approx(0.01, abs=0.003)
    np.testing.assert_allclose(np.quantile(seen, 0.5), np.quantile(expected, 0.5), rtol=0.02)
    assert np.all(np.diff(expected) > 0)
    assert np.all(np.diff(seen) >= 0)
