"""The class-conditional GAN: its labels, its losses and its scores."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from ganad.detectors.gan.acgan import Acgan, ConditionalBatchNorm2d
from ganad.detectors.gan.config import AcganConfig
from ganad.errors import ConfigError, TrainingError
from ganad.training.trainer import Trainer
from tests.ganad.detectors.small import (
    InMemory,
    losses_of,
    prepared,
    random_images,
    small,
    step_with,
)

acgan = partial(small, "acgan", image_size=16, latent=8, precision="float32")


TYPES = ("bolt", "nut", "washer")
HEADS = ["projection", "acgan"]


def test_the_networks_are_those_of_the_paper_at_32_pixels() -> None:
    model = Acgan(AcganConfig())
    generator = [*model.generator.convolutions, model.generator.last]
    assert [part.out_channels for part in generator] == [384, 192, 96, 3]
    convolutions = [part for part in model.discriminator.features if isinstance(part, nn.Conv2d)]
    assert [part.out_channels for part in convolutions] == [16, 32, 64, 128, 256, 512]
    assert [part.stride[0] for part in convolutions] == [2, 1, 2, 1, 2, 1]


@pytest.mark.parametrize(("head", "norm"), [("projection", "none"), ("acgan", "batch")])
def test_parameter_counts_by_hand(head: str, norm: str) -> None:
    model = acgan(classes=TYPES, head=head, discriminator_norm=norm)
    generator = 8 * 16 * 16 + 16 * 8 * 25 + (8 * 1 * 25 + 1) + 2 * 3 * (16 + 8)
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    kernels = 9 * (1 * 4 + 4 * 8 + 8 * 16 + 16 * 32)
    shifts = 4 + 8 + 16 + 32 if norm == "none" else 4 + 2 * (8 + 16 + 32)
    heads = 32 + 1 + 3 * 32 if head == "projection" else 16 * 32 + 1 + 3 * 16 * 32 + 3
    found = sum(p.numel() for p in model.discriminator.parameters())
    assert found == kernels + shifts + heads


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_generated_images_have_the_size_and_range_of_real_ones(size: int, channels: int) -> None:
    model = acgan(image_size=size, channels=channels, classes=TYPES)
    with torch.no_grad():
        fakes = model.generator(torch.randn(3, 8, 1, 1), torch.arange(3))
    assert fakes.shape == (3, channels, size, size)
    assert fakes.abs().max() <= 1


def test_conditional_batch_norm_scales_and_shifts_by_class() -> None:
    norm = ConditionalBatchNorm2d(1, 2)
    with torch.no_grad():
        norm.scale.weight.copy_(torch.tensor([[1.0], [3.0]]))
        norm.shift.weight.copy_(torch.tensor([[0.0], [5.0]]))
    x = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)  # mean 0 and variance 1 already
    found = norm(x, torch.tensor([0, 1])).flatten().tolist()
    assert found == pytest.approx([-1.0, 8.0], abs=1e-3)


def test_the_projection_head_is_the_inner_product_of_the_paper() -> None:
    model = acgan(classes=TYPES)
    with torch.no_grad():
        x = prepared(random_images(2, size=16))
        phi = model.discriminator.features(x).sum((2, 3))
        head = model.discriminator.head
        embedding = head.classes.weight.flatten(1)
        psi = phi @ head.source.weight.flatten() + head.source.bias
        real, classes = model.discriminator(x)
    for number, vector in enumerate(embedding):
        torch.testing.assert_close(classes[:, number], phi @ vector)
        torch.testing.assert_close(real[:, number], psi + phi @ vector)


def test_the_auxiliary_head_says_real_whatever_the_class() -> None:
    real, classes = acgan(classes=TYPES, head="acgan").discriminator(torch.rand(2, 1, 16, 16))
    assert real.shape == classes.shape == (2, 3)
    assert torch.equal(real, real[:, :1].expand(2, 3))
    assert not torch.equal(classes, classes[:, :1].expand(2, 3))


@pytest.mark.parametrize("head", HEADS)
def test_losses_are_those_of_the_papers(head: str) -> None:
    model = acgan(classes=TYPES, head=head, dropout=0.0, w_class=2.0)
    x, y = prepared(random_images(6, size=16)), torch.tensor([0, 1, 2, 2, 1, 0])
    found = losses_of(model, x, labels=y)
    torch.manual_seed(3)
    fakes = model.generator(torch.randn(6, 8, 1, 1), y)
    (real, real_classes), (fake, fake_classes) = map(model.discriminator, (x, fakes))
    rows = torch.arange(6)
    bce, one = F.binary_cross_entropy_with_logits, torch.ones(6)
    d = (bce(real[rows, y], one) + bce(fake[rows, y], one * 0)) / 2
    g = bce(fake[rows, y], one)
    if head == "acgan":
        classes = F.cross_entropy(real_classes, y) + F.cross_entropy(fake_classes, y)
        d, g = d + 2 * classes, g + 2 * classes
    torch.testing.assert_close(found["discriminator"], d, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["generator"], g, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_the_adversarial_term_reaches_the_generator(head: str) -> None:
    model = acgan(classes=TYPES, head=head, w_class=0.0)
    found = losses_of(model, prepared(random_images(6, size=16)), labels=torch.arange(6) % 3)
    gradients = torch.autograd.grad(found["generator"], list(model.generator.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("score", ["source", "class", "combined"])
@pytest.mark.parametrize("head", HEADS)
def test_scores_are_surprises_of_the_likeliest_type(head: str, score: str) -> None:
    model = acgan(classes=TYPES, head=head, score=score)
    images = random_images(3, size=16)
    with torch.no_grad():
        real, classes = model.discriminator(prepared(images))
    d, p = real.sigmoid(), classes.softmax(1)
    expected = {"source": d, "class": p, "combined": d * p}
    scores = model.score(images, maps=True)
    for name, value in expected.items():
        np.testing.assert_allclose(scores.terms[name], -value.amax(1).log().numpy(), rtol=1e-4)
    np.testing.assert_array_equal(scores.score, scores.terms[score])
    assert scores.maps is None


def test_a_single_class_needs_no_labels() -> None:
    model = acgan(batch_size=8, epochs=1)
    assert model.label_numbers(["good", None]).tolist() == [0, 0]
    *_, last = Trainer(model, InMemory(random_images(16, size=16))).run()
    assert all(math.isfinite(loss) for loss in last.losses.values())
    scores = model.score(random_images(2, size=16))
    np.testing.assert_array_equal(scores.terms["class"], 0)
    np.testing.assert_array_equal(scores.score, scores.terms["source"])


def test_several_classes_without_labels_are_refused() -> None:
    model = acgan(classes=TYPES)
    with pytest.raises(TrainingError, match=r"^classes=\['bolt', .* needs a label"):
        model.training_step(torch.zeros(2, 1, 16, 16), step_with())


def test_labels_become_their_places_among_the_classes() -> None:
    model = acgan(classes=TYPES)
    assert model.label_numbers(["nut", "bolt", "washer", "nut"]).tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("label", ["screw", None])
def test_a_label_that_is_no_class_is_refused(label: str | None) -> None:
    with pytest.raises(TrainingError, match=rf"^classes=.* does not name the label {label!r}"):
        acgan(classes=TYPES).label_numbers(["bolt", label])


@pytest.mark.parametrize("classes", [(), ("bolt", "bolt"), ("",)])
def test_classes_must_be_different_names(classes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="^classes="):
        acgan(classes=classes)


@pytest.mark.parametrize("head", HEADS)
def test_training_on_real_types_teaches_what_is_real(head: str) -> None:
    # With separate batches and batch-norm, D in eval mode rated fakes above its training images.
    digits = load_digits()
    chosen = np.flatnonzero(digits.target < 3)[:200]
    pixels = (digits.images[chosen] * (255 / 16)).astype(np.uint8)
    images = pixels.repeat(2, 1).repeat(2, 2)[:, None]
    labels = torch.from_numpy(digits.target[chosen]).long()
    keys = {"classes": TYPES, "epochs": 8, "batch_size": 20, "learning_rate": 1e-3, "dropout": 0.1}
    model = acgan(head=head, discriminator_width=8, **keys)
    names = [TYPES[number] for number in labels]
    trainer = Trainer(model, InMemory(images), labels=names)
    reports = [p for p in trainer.run() if p.losses]
    assert reports[-1].losses["discriminator"] < reports[0].losses["discriminator"]
    with torch.no_grad():
        real, _ = model.discriminator(model.prepare(torch.from_numpy(images)))
        fake, _ = model.discriminator(model.generator(torch.randn(200, 8, 1, 1), labels))
    mine = torch.arange(200), labels
    assert real[mine].mean() > fake[mine].mean()


def test_samples_stand_in_for_reconstructions() -> None:
    model = acgan(classes=TYPES)
    x = prepared(random_images(4, size=16))
    with torch.no_grad():
        assert model.reconstruct(x).shape == x.shape
        assert torch.equal(model.reconstruct(x), model.reconstruct(x))
