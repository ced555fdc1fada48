import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from ganad.features.mixture import Mixture, best_number, fit, merge_sums, sums
from ganad.features.moments import Moments, ledoit_wolf


def draw(num: int, seed: int = 0, distance: float = 12.0) -> torch.Tensor:
    """Three of ten vectors from a narrow Gaussian, the others from a wide one far from it."""
    rng = np.random.default_rng(seed)
    narrow = rng.normal(size=(num, 3)) * [1, 0.3, 0.5] + distance
    wide = rng.normal(size=(num, 3)) @ rng.normal(size=(3, 3))
    return torch.from_numpy(np.where(rng.random((num, 1)) < 0.3, narrow, wide))


def test_sums_with_responsibilities_merge_in_any_order_to_those_of_all() -> None:
    x = draw(90)
    shares = torch.rand(90, 2, dtype=torch.float64)
    whole = sums(x, shares, x.mean(0))
    parts = [
        sums(x[part], shares[part], x[part].mean(0))
        for part in torch.arange(90).split([20, 40, 30])
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        for merged, expected in zip(merge_sums(parts[i] for i in order), whole, strict=True):
            np.testing.assert_allclose(merged.n, expected.n)
            torch.testing.assert_close(merged.mean, expected.mean)
            torch.testing.assert_close(ledoit_wolf(merged).matrix, ledoit_wolf(expected).matrix)


def test_a_weight_counts_a_vector_so_many_times() -> None:
    x = draw(20)
    times = torch.arange(20) % 3
    weighted = Moments.empty(x[0]).add(x, times.double())
    repeated = Moments.empty(x[0]).add(x.repeat_interleave(times, dim=0))
    assert weighted.n == repeated.n
    torch.testing.assert_close(ledoit_wolf(weighted).matrix, ledoit_wolf(repeated).matrix)
    np.testing.assert_allclose(
        ledoit_wolf(weighted).shrinkage, ledoit_wolf(repeated).shrinkage, rtol=1e-10
    )


def test_fractions_of_vectors_are_kept_in_a_pickled_sum() -> None:
    x = draw(5)
    moments = Moments.empty(x[0]).add(x, torch.full((5,), 0.3, dtype=torch.float64))
    assert Moments.from_arrays(moments.to_arrays()).n == moments.n == 1.5


def test_em_finds_the_gaussians_that_vectors_were_drawn_from() -> None:
    mixture = fit(draw(2000), 2, seed=0)
    weights = mixture.log_peaks - mixture.whitening.diagonal(dim1=1, dim2=2).log().sum(1)
    narrow = int(weights.argmin())
    np.testing.assert_allclose(weights[narrow].exp(), 0.3, atol=0.03)
    np.testing.assert_allclose(mixture.means[narrow], 12, atol=0.1)
    spread = mixture.whitening[narrow].inverse().norm(dim=1)
    np.testing.assert_allclose(spread, [1, 0.3, 0.5], rtol=0.1)


def test_the_likelihood_is_that_of_scipy() -> None:
    x = draw(200)
    mixture = fit(x, 2, seed=0)
    heights = mixture.whitening.diagonal(dim1=1, dim2=2).log().sum(1)
    columns = []
    for mean, whitening, weight in zip(
        mixture.means, mixture.whitening, mixture.log_peaks - heights, strict=True
    ):
        covariance = (whitening.T @ whitening).inverse().numpy()
        columns.append(float(weight) + multivariate_normal(mean, covariance).logpdf(x))
    expected = logsumexp(columns, axis=0).mean() + 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(mixture.log_likelihood(x), expected)


def test_no_step_lowers_the_likelihood() -> None:
    x = draw(500, distance=2.0)
    # Many vectors in few coordinates: hardly any shrinkage, which EM does not know of.
    shares = torch.rand(500, 2, dtype=torch.float64).softmax(1)
    reached = []
    for _ in range(15):
        mixture = Mixture.of(sums(x, shares, x.mean(0)))
        joint = mixture.log_joint(x)
        reached.append(float(joint.logsumexp(1).mean()))
        shares = joint.softmax(1)
    assert (np.diff(reached) > -1e-4).all()
    assert reached[-1] > reached[0] + 0.1


def test_held_out_vectors_choose_the_number_of_components() -> None:
    two = draw(500)
    assert best_number(two[:400], two[400:], 4, seed=0) == 2
    one = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 3)))
    assert best_number(one[:400], one[400:], 4, seed=0) == 1
