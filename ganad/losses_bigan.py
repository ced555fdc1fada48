"""Losses and scores of EGBAD and ALAD, as one pure function per equation.

CE(l, t) is the cross-entropy of a logit l with target t: CE(l, 1) = softplus(−l) and
CE(l, 0) = softplus(l). Losses are means over the batch, scores are per image in float64.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def called_real(logit: Tensor) -> Tensor:
    """mean CE(l, 1): small when the discriminator takes the pair for a real one."""
    return F.softplus(-logit.float()).mean()


def called_fake(logit: Tensor) -> Tensor:
    """mean CE(l, 0): small when the discriminator takes the pair for a made one."""
    return F.softplus(logit.float()).mean()


def discriminator(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """L_D = CE(real, 1) + CE(fake, 0).

    BiGAN: real is D(x, E(x)), fake D(G(z), z) (Zenati et al. 2018). ALAD's cycle
    discriminators: real is D(x, x), fake D(x, G(E(x))), and likewise for z (Zenati et al. 2018b).
    """
    return called_real(real_logit) + called_fake(fake_logit)


def cycle(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """What G and E pay a cycle discriminator: CE(real, 0) + CE(fake, 1), both targets flipped.

    The first part does not depend on G or E; it keeps the loss comparable with the authors' code.
    """
    return called_fake(real_logit) + called_real(fake_logit)


def l1_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖_1 per image, a sum: (n, ...) -> (n,)."""
    return (a.double() - b.double()).abs().flatten(1).sum(1)


def l2_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖_2 per image: (n, ...) -> (n,)."""
    return (a.double() - b.double()).square().flatten(1).sum(1).sqrt()


def cross_entropy(logit: Tensor) -> Tensor:
    """CE(l, 1) per image: (n,) -> (n,)."""
    return F.softplus(-logit.double())


def egbad_score(generator: Tensor, discriminator: Tensor, alpha: float) -> Tensor:
    """A(x) = α·L_G(x) + (1 − α)·L_D(x) (Zenati et al. 2018): (n,)."""
    return alpha * generator + (1 - alpha) * discriminator
