"""Detectors that see dense maps instead of pixels."""

from typing import Any

import numpy as np
import pytest
import torch

from ganad.detectors import configure, create, find
from ganad.detectors.gradient import LARGEST_HALF, SPLIT, _to_half
from ganad.errors import ConfigError
from ganad.training.maps import fit_maps, moments_of
from tests.ganad.detectors.small import (
    MAPS,
    ON_MAPS,
    SMALL,
    InMemory,
    random_images,
    small,
)


def test_pixels_are_seen_unless_the_key_says_maps() -> None:
    model = small("ganomaly", channels=3)
    images = random_images(2, 3)
    assert torch.equal(model.represent(images), images)
    assert torch.equal(model.inputs(images), images.float() / 127.5 - 1)
    assert model.shape == (32, 3, True)
    assert not any("maps" in key for key in model.state_dict())


def test_maps_are_standardised_and_half_of_them_is_kept() -> None:
    model = small("ganomaly", **MAPS)
    images = random_images(20, 3)
    raw = model.represent(images)
    assert raw.dtype == torch.float16
    assert raw.shape == (20, 16, 16, 16)
    assert model.shape == (16, 16, False)
    fit_maps(model, moments_of(model, InMemory(images), np.arange(20)))
    seen = model.inputs(images)
    assert torch.equal(seen, model.inputs(raw))
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(16), atol=1e-3, rtol=0)
    spread = seen.square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(spread, torch.ones(16), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ON_MAPS)
def test_a_score_is_the_same_from_an_image_and_from_its_kept_maps(name: str) -> None:
    model = small(name, **MAPS)
    images, ids = random_images(5, 3), list("abcde")
    from_images = model.score(images, ids, maps=True)
    from_maps = model.score(model.represent(images), ids, maps=True)
    np.testing.assert_array_equal(from_images.score, from_maps.score)
    assert set(from_images.terms) == set(model.config.known_terms)
    assert from_images.maps is not None
    np.testing.assert_array_equal(from_images.maps, from_maps.maps)
    assert from_images.maps.shape == (5, 32, 32)


@pytest.mark.parametrize("name", ON_MAPS)
def test_each_term_can_make_the_score(name: str) -> None:
    model, images = small(name, **MAPS), random_images(3, 3)
    for term in model.config.known_terms:
        model.scale.counted = (term,)
        scores = model.score(images)
        np.testing.assert_array_equal(scores.score, scores.terms[term])


def test_the_terms_of_ganomaly_against_the_equations() -> None:
    model = small("ganomaly", **MAPS, code_side=4, worst=1.0, precision="float32")
    images = random_images(3, 3)
    with torch.no_grad():
        x = model.inputs(images)
        z = model.encoder1(x)
        x_hat = model.decoder(z)
        z_hat = model.encoder2(x_hat)
        f, f_hat = model.discriminator(x)[1], model.discriminator(x_hat)[1]
    assert z.shape == (3, 10, 4, 4)
    dots = (x * x_hat).sum(1) / (x.norm(dim=1) * x_hat.norm(dim=1))
    expected = {
        "residual": (x - x_hat).square().mean((1, 2, 3)),
        "cosine": 1 - dots.mean((1, 2)),
        "latent": (z - z_hat).square().mean((1, 2, 3)),
        "features": (f - f_hat).square().mean((1, 2, 3)),
    }
    scores = model.score(images)
    for name, term in expected.items():
        np.testing.assert_allclose(scores.terms[name], term, rtol=1e-3)
    np.testing.assert_array_equal(scores.score, scores.terms["latent"])


def test_a_generator_of_maps_is_not_bounded() -> None:
    for name in ON_MAPS:
        model = small(name, **MAPS)
        assert not any(isinstance(part, torch.nn.Tanh) for part in model.modules()), name


def test_windows_have_maps_of_their_own() -> None:
    keys: dict[str, Any] = {**MAPS, "image_size": 48, "patch": {"size": 32, "stride": 16}}
    model = small("autoencoder", **keys)
    images = random_images(2, 3, 48)
    scores = model.score(images, maps=True)
    windows = [model.score_inputs(model.patches(images[i : i + 1])).score.max() for i in range(2)]
    np.testing.assert_allclose(scores.score, windows)
    assert scores.maps is not None
    assert scores.maps.shape == (2, 48, 48)


def test_a_saved_model_needs_no_other_weights() -> None:
    model = small("ganomaly", **MAPS)
    lost = {"backbone": {**MAPS["backbone"], "weights": "/nowhere/lost.pth"}}
    config = configure("ganomaly", {**model.config.model_dump(), **lost})
    with pytest.raises(ConfigError, match=r"^backbone\.weights=/nowhere/lost\.pth"):
        create("ganomaly", config)
    loaded = find("ganomaly").from_saved(config).eval()
    loaded.load_state_dict(model.state_dict())
    images = random_images(2, 3)
    np.testing.assert_allclose(loaded.score(images).score, model.score(images).score, rtol=1e-6)


def test_the_facts_name_the_weights() -> None:
    facts = small("ganomaly", **MAPS).facts()
    assert set(facts) == {"weights", "weights_digest"}
    assert small("ganomaly").facts() == {}


def test_images_are_as_large_as_the_backbone_wants_them() -> None:
    keys = {"representation": "maps"}
    assert configure("ganomaly", {}).image_size == 64
    assert configure("ganomaly", keys).image_size == 224
    assert configure("ganomaly", {**keys, "backbone": {"name": "resnet18"}}).image_size == 288
    assert configure("ganomaly", {**keys, "image_size": 128}).image_size == 128


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"terms": "latent,foo"}, r"^terms=latent,foo must be different terms of this method: use"),
        ({"terms": ["latent", "latent"]}, "^terms=latent,latent must be different"),
        ({"terms": []}, "^terms="),
        ({"worst": 0}, "^worst=0 "),
        (
            {"backbone": {**MAPS["backbone"], "grid": 20}},
            r"^backbone\.grid=20 does not halve down to 4",
        ),
        ({"representation": "vectors"}, "^representation='vectors'"),
    ],
)
def test_wrong_keys_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure("ganomaly", {**SMALL["ganomaly"], **MAPS, **keys})


@pytest.mark.parametrize("name", ["acgan", "pixelcnn"])
def test_methods_without_maps_do_not_know_the_key(name: str) -> None:
    with pytest.raises(ConfigError, match="^representation is no key"):
        configure(name, {"representation": "maps"})


def test_maps_are_rounded_to_half_precision_by_arithmetic_too():
    """So that an engine which computes all in float32 rounds them as well."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(10_000, generator=generator) * torch.logspace(-4, 4, 10_000)
    maps = torch.cat([maps, torch.tensor([0.0, 1e9, -1e9])])
    half = _to_half(maps)
    assert half.dtype == torch.float16
    plain = maps.clamp(-LARGEST_HALF, LARGEST_HALF).half()
    difference = (half.float() - plain.float()).abs()
    assert (difference <= plain.abs().float() * 2.0**-10 + 2.0**-24).all()  # ties go either way
    assert (difference == 0).float().mean() > 0.99
    # Nothing is left for the conversion to do, but for numbers below float16's normal ones.
    far = maps * SPLIT
    rounded = (far - (far - maps))[maps.abs().clamp_min(1e-4) < LARGEST_HALF]
    normal = rounded.abs() > 1e-4
    assert torch.equal(rounded[normal].half().float(), rounded[normal])
