"""AnoGAN's search, on a small generator whose images depend smoothly on four numbers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ganad.detectors.gan.latent_search import LatentSearch, SearchOptions, frozen
from ganad.networks.dcgan import Generator, opponent

LATENT = 4
QUICK = SearchOptions(steps=60, rate=5e-2, slots=4)


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module]:
    """G with statistics of its own and images of some contrast, and D's features."""
    torch.manual_seed(0)
    generator = Generator(16, 1, 8, LATENT)
    features = opponent(16, 1, 8, layer_norm=False).features
    assert isinstance(features, nn.Module)
    with torch.no_grad():
        last = generator.layers[-2]
        assert isinstance(last, nn.ConvTranspose2d)
        last.weight *= 10
        for _ in range(100):
            features(generator(torch.randn(64, LATENT)))
    return generator.eval(), features.eval()


def codes(num: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(num, LATENT, generator=torch.Generator().manual_seed(seed))


def images_of(networks: tuple[nn.Module, nn.Module], num: int) -> torch.Tensor:
    with torch.no_grad():
        return networks[0](codes(num, seed=2))


def test_codes_of_generated_images_are_recovered(networks: tuple[nn.Module, nn.Module]) -> None:
    options = replace(QUICK, steps=300, rate=5e-2, slots=32, keep="best")
    starts = torch.stack([codes(8, seed) for seed in range(4)], 1)
    found = LatentSearch(*networks, options).run(images_of(networks, 8), starts)
    torch.testing.assert_close(found.z, codes(8, seed=2), atol=0.02, rtol=0)
    torch.testing.assert_close(found.images, images_of(networks, 8), atol=0.02, rtol=0)


def test_noise_is_further_from_the_generator_than_its_own_images(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    own = images_of(networks, 8)
    noise = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    options = replace(QUICK, steps=300, slots=16)
    loss = LatentSearch(*networks, options).run(torch.cat([own, noise]), codes(16)[:, None]).loss
    assert loss[:8].max() * 3 < loss[8:].min()


def test_a_search_from_the_true_code_stays_there(networks: tuple[nn.Module, nn.Module]) -> None:
    x, z = images_of(networks, 4), codes(4, seed=2)
    start = LatentSearch(*networks, QUICK).run(x, codes(4)[:, None])
    found = LatentSearch(*networks, replace(QUICK, keep="best")).run(x, z[:, None])
    assert (found.loss < 1e-3 * start.loss.mean()).all()


def test_each_image_goes_the_way_that_it_goes_alone_under_adam(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    generator, features = networks
    x, starts = images_of(networks, 3), codes(3)
    found = LatentSearch(generator, features, replace(QUICK, steps=20)).run(x, starts[:, None])
    for i in range(3):
        z = starts[i : i + 1].clone().requires_grad_()
        adam = torch.optim.Adam([z], lr=QUICK.rate)
        for step in range(20):
            rate = QUICK.rate * (1 if step < 8 else 0.1 if step < 12 else 0.05)
            adam.param_groups[0]["lr"] = rate
            residual = (x[i] - generator(z)[0]).abs().sum()
            discrimination = (features(x[i : i + 1]) - features(generator(z))).abs().sum()
            adam.zero_grad()
            (0.9 * residual + 0.1 * discrimination).backward(inputs=[z])
            adam.step()
        torch.testing.assert_close(found.z[i], z.detach()[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_a_result_is_the_same_alone_in_a_crowd_and_in_any_order(
    networks: tuple[nn.Module, nn.Module], dtype: torch.dtype, tolerance: float
) -> None:
    # With a tolerance searches end at different times, and slots pass to the next image.
    options = replace(QUICK, steps=150, rate=2e-2, tolerance=tolerance, dtype=dtype)
    search = LatentSearch(*networks, options)
    x, starts = images_of(networks, 16), codes(16)[:, None]
    x[12:] = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    together = search.run(x, starts)
    if tolerance:
        assert len(together.steps.unique()) > 1
    for i in (0, 5, 13):
        alone = search.run(x[i : i + 1], starts[i : i + 1])
        assert torch.equal(alone.loss, together.loss[i : i + 1])
        assert torch.equal(alone.z, together.z[i : i + 1])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(5))
    shuffled = search.run(x[order], starts[order])
    assert torch.equal(shuffled.loss, together.loss[order])
    assert torch.equal(shuffled.steps, together.steps[order])


def test_converged_searches_end_early_and_near_where_they_would_have(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    x, starts = images_of(networks, 8), codes(8)[:, None]
    whole = LatentSearch(*networks, replace(QUICK, steps=300)).run(x, starts)
    early = LatentSearch(*networks, replace(QUICK, steps=300, tolerance=0.01)).run(x, starts)
    assert (whole.steps == 300).all()
    assert (early.steps < 300).any()
    torch.testing.assert_close(early.loss, whole.loss, rtol=0.1, atol=2.0)


@pytest.mark.parametrize("steps", [1, 7, 50, 51, 101])
def test_a_search_takes_the_steps_asked_for(
    networks: tuple[nn.Module, nn.Module], steps: int
) -> None:
    search = LatentSearch(*networks, replace(QUICK, steps=steps, rate=1e-3))
    start = codes(1)[:, None]
    found = search.run(images_of(networks, 1), start)
    assert found.steps.tolist() == [steps]
    # Adam's first step is the rate itself in every number; a second one would go on from there.
    if steps == 1:
        torch.testing.assert_close((found.z - start[0]).abs(), torch.full((1, 4), 1e-3))


def test_the_best_of_several_restarts_counts(networks: tuple[nn.Module, nn.Module]) -> None:
    search = LatentSearch(*networks, QUICK)
    x, starts = images_of(networks, 5), torch.stack([codes(5, seed) for seed in (1, 7, 8)], 1)
    each = torch.stack([search.run(x, starts[:, r : r + 1]).loss for r in range(3)], 1)
    together = search.run(x, starts)
    assert torch.equal(together.loss, each.min(1).values)
    assert len(each.argmin(1).unique()) > 1


def test_the_best_code_on_the_way_is_no_worse_than_the_last(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    x, starts = images_of(networks, 8), codes(8)[:, None]
    wild = replace(QUICK, rate=0.5)
    last = LatentSearch(*networks, wild).run(x, starts)
    best = LatentSearch(*networks, replace(wild, keep="best")).run(x, starts)
    assert (best.loss <= last.loss * 1.0001).all()
    assert (best.loss < last.loss).any()
    losses = [
        LatentSearch(*networks, replace(QUICK, steps=n, keep="best")).run(x, starts).loss.sum()
        for n in (1, 25, 50)
    ]
    assert losses == sorted(losses, reverse=True)


def test_the_prior_draws_codes_to_the_origin_and_stays_out_of_the_score(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    x, starts = images_of(networks, 4), codes(4)[:, None]
    free = LatentSearch(*networks, QUICK).run(x, starts)
    drawn = LatentSearch(*networks, replace(QUICK, prior=1e3)).run(x, starts)
    assert drawn.z.norm() < 0.5 * free.z.norm()
    torch.testing.assert_close(drawn.loss, 0.9 * drawn.residual + 0.1 * drawn.discrimination)


def test_terms_against_the_equations(networks: tuple[nn.Module, nn.Module]) -> None:
    generator, features = networks
    x = images_of(networks, 2)
    for reduction in ("sum", "mean"):
        options = replace(QUICK, steps=3, feature_share=0.3, reduction=reduction)
        found = LatentSearch(generator, features, options).run(x, codes(2)[:, None])
        with torch.no_grad():
            image = generator(found.z)
            residual = (x - image).abs().flatten(1)
            discrimination = (features(x) - features(image)).abs().flatten(1)
        residual = residual.sum(1) if reduction == "sum" else residual.mean(1)
        discrimination = discrimination.sum(1) if reduction == "sum" else discrimination.mean(1)
        torch.testing.assert_close(found.images, image)
        torch.testing.assert_close(found.residual, residual)
        torch.testing.assert_close(found.discrimination, discrimination)
        torch.testing.assert_close(found.loss, 0.7 * residual + 0.3 * discrimination)


def test_an_image_that_is_not_finite_harms_no_other(
    networks: tuple[nn.Module, nn.Module],
) -> None:
    search = LatentSearch(*networks, replace(QUICK, steps=120, tolerance=0.01))
    x, starts = images_of(networks, 6), codes(6)[:, None]
    clean = search.run(x, starts)
    spoilt = x.clone()
    spoilt[2] = torch.nan
    found = search.run(spoilt, starts)
    assert found.loss[2].isnan()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(found.loss[others], clean.loss[others])


def test_frozen_copies_compute_the_same_and_leave_the_network_alone() -> None:
    torch.manual_seed(0)
    generator = Generator(32, 3, 4, 8)
    generator(torch.randn(16, 8))
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    copy = frozen(generator, torch.float32)
    z = torch.randn(5, 8)
    with torch.no_grad():
        torch.testing.assert_close(copy(z), generator.eval()(z))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in copy.modules())
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert all(parameter.requires_grad for parameter in generator.parameters())
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_bfloat16_ends_near_float32(networks: tuple[nn.Module, nn.Module]) -> None:
    noise = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    noise *= torch.linspace(0.1, 1, 12)[:, None, None, None]
    starts = codes(12)[:, None]
    exact = LatentSearch(*networks, replace(QUICK, steps=200)).run(noise, starts)
    options = replace(QUICK, steps=200, dtype=torch.bfloat16)
    rough = LatentSearch(*networks, options).run(noise, starts)
    torch.testing.assert_close(rough.loss, exact.loss, rtol=0.02, atol=0)
