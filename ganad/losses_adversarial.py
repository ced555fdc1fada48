"""The objectives of the two players of a GAN, chosen by name, as pure functions. D(·) is a logit
or, for a critic, a value; x is an image, x̃ = G(z), f(·) the discriminator's features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Objective = Literal["bce", "wgan-gp"]
BatchMean = Callable[[Tensor], Tensor]
"""(n, ...) -> (...), the mean over all images of a batch, wherever they are."""


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """bce: −mean log σ(D(x)) − mean log(1 − σ(D(x̃)))   (Goodfellow et al. 2014, eq. 1)
    wgan-gp: mean D(x̃) − mean D(x), to which gradient_penalty belongs (Gulrajani 2017, eq. 3)

    Logarithms by softplus: that of a sigmoid underflows.
    """
    real, fake = real.float(), fake.float()
    if objective == "bce":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return fake.mean() - real.mean()


def generator_loss(objective: Objective, fake: Tensor) -> Tensor:
    """bce: −mean log σ(D(x̃)), the form that does not saturate (Goodfellow et al. 2014, §3)
    wgan-gp: −mean D(x̃)
    """
    fake = fake.float()
    return F.softplus(-fake).mean() if objective == "bce" else -fake.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], x: Tensor, x_tilde: Tensor, u: Tensor
) -> Tensor:
    """mean (‖∇D(x̂)‖₂ − 1)², x̂ = x + u(x̃ − x), u ~ U(0, 1) of (n, 1, 1, 1), the norm over all
    pixels of an image (Gulrajani et al. 2017, eq. 3, without λ).

    In float32 even under autocast: it is differentiated twice, and bfloat16 has 8 bits.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, x_tilde = x.detach().float(), x_tilde.detach().float()
        x_hat = (x + u * (x_tilde - x)).requires_grad_()
        # Images do not mix inside a critic, so the gradient of the sum holds one of each.
        (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def fm_mean(f_x: Tensor, f_x_tilde: Tensor, batch_mean: BatchMean) -> Tensor:
    """‖mean f(x) − mean f(x̃)‖² / d over d features: a loss of two batches (Salimans et al. 2016,
    §3.1; divided by d as in the authors' code)."""
    return F.mse_loss(batch_mean(f_x_tilde.float()), batch_mean(f_x.float()))


def fm_pair(f_x: Tensor, f_x_tilde: Tensor) -> Tensor:
    """Σ |f(x) − f(x̃)|, each image with its own partner -> (n,) (Schlegl et al. 2017, eq. 4)."""
    return (f_x.float() - f_x_tilde.float()).abs().flatten(1).sum(1)


def spread(images: Tensor, batch_mean: BatchMean) -> Tensor:
    """How much images differ from each other: the deviation over the batch, mean over pixels."""
    x = images.float()
    return batch_mean((x - batch_mean(x)).square()).sqrt().mean()
