"""One pure function per equation, with the papers' symbols. All losses are float32 means or sums
as stated; n is the batch, x an image, x̂ its reconstruction, f(·) discriminator features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def per_image(values: Tensor) -> Tensor:
    """Mean over all but the batch axis: (n, ...) -> (n,), in float32."""
    return values.float().flatten(1).mean(1)


def contextual(x: Tensor, x_hat: Tensor) -> Tensor:
    """L_con = mean |x − x̂| (Akçay et al. 2018, eq. 2)."""
    return F.l1_loss(x_hat.float(), x.float())


def encoder_distance(z: Tensor, z_hat: Tensor) -> Tensor:
    """L_enc = mean (z − ẑ)² (Akçay et al. 2018, eq. 3)."""
    return F.mse_loss(z_hat.float(), z.float())


def feature_pair(f_x: Tensor, f_x_hat: Tensor) -> Tensor:
    """L_adv = mean (f(x) − f(x̂))², each image with its own reconstruction (ibid., eq. 1)."""
    return F.mse_loss(f_x_hat.float(), f_x.float())


def discriminator_bce(real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """½[−log D(x) − log(1 − D(x̂))], means over the batch (Goodfellow et al. 2014, eq. 1).

    From logits by softplus: a logarithm of a sigmoid underflows.
    """
    real, fake = real_logit.float(), fake_logit.float()
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_bce(fake_logit: Tensor) -> Tensor:
    """−log D(G(z)), the non-saturating form (Goodfellow et al. 2014, §3)."""
    return F.softplus(-fake_logit.float()).mean()


def absolute_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """|x − x̂| averaged over channels: n×c×h×w -> n×h×w."""
    return (x.float() - x_hat.float()).abs().mean(1)


def total(weights_and_losses: list[tuple[float, Tensor]]) -> Tensor:
    """Σ w·L."""
    return torch.stack([weight * loss for weight, loss in weights_and_losses]).sum()
