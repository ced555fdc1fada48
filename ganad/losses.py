"""One pure function per equation, with the papers' symbols.

n is the batch, x an image, x̂ its reconstruction, z a code, D(·) the logit of a discriminator or the
value of a critic, f(·) its features. Losses are means over the batch in float32, whatever the
precision of their inputs; functions that give scores say so. A factor that one paper alone has
stands where its detector calls the loss.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

BatchMean = Callable[[Tensor], Tensor]
"""(n, ...) -> (...), the mean over all images of a batch, wherever they are."""

LOG_VARIANCE_BOUND = 10.0
"""log σ² is kept within ± this: exp overflows float32 at 88, and KL is meaningless long before."""
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
"""The 11×11 Gaussian window of Wang et al. 2004."""
C1, C2 = 0.01**2, 0.03**2
"""Stabilisers of SSIM for values in [0, 1] (Wang et al. 2004, eq. 13, with L = 1)."""


# ---------------------------------------------------------------------------- Shared


def absolute_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """mean |x − x̂| (GANomaly's L_con: Akçay et al. 2018, eq. 2)."""
    return F.l1_loss(x_hat.float(), x.float())


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """mean (x − x̂)², each image with its own reconstruction.

    GANomaly's L_enc of codes and its L_adv of features (Akçay et al. 2018, eq. 3 and 1), f-AnoGAN's
    losses of images and features (Schlegl et al. 2019, eq. 3).
    """
    return F.mse_loss(x_hat.float(), x.float())


def total(weights_and_losses: list[tuple[float, Tensor]]) -> Tensor:
    """Σ w·L."""
    return torch.stack([weight * loss for weight, loss in weights_and_losses]).sum()


def per_image(values: Tensor) -> Tensor:
    """Mean over all but the batch axis: (n, ...) -> (n,); taken in float32, given in float64."""
    return values.float().flatten(1).mean(1).double()


def absolute_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """|x − x̂| averaged over channels: n×c×h×w -> n×h×w."""
    return (x.float() - x_hat.float()).abs().mean(1)


def l1_distance(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """‖a − b‖_1 of each image and its partner, a sum: (n, ...) -> (n,) of dtype.

    AnoGAN's R and Df (Schlegl et al. 2017, eq. 2 and 4), EGBAD's and ALAD's distances.
    """
    return (a.to(dtype) - b.to(dtype)).abs().flatten(1).sum(1)


def l2_distance(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖_2 of each image and its partner: (n, ...) -> (n,) in float64."""
    return (a.double() - b.double()).square().flatten(1).sum(1).sqrt()


# ---------------------------------------------------------------------------- Adversarial


def called_real(logit: Tensor) -> Tensor:
    """CE(l, 1) = −mean log σ(l), small where the discriminator takes its input for real; for G the
    loss that does not saturate (Goodfellow et al. 2014, §3).

    By softplus, because the logarithm of a sigmoid underflows.
    """
    return F.softplus(-logit.float()).mean()


def called_fake(logit: Tensor) -> Tensor:
    """CE(l, 0) = −mean log(1 − σ(l)), small where the discriminator takes its input for fake."""
    return F.softplus(logit.float()).mean()


def discriminator_bce(real: Tensor, fake: Tensor) -> Tensor:
    """CE(real, 1) + CE(fake, 0) (Goodfellow et al. 2014, eq. 1).

    BiGAN: real is D(x, E(x)), fake D(G(z), z) (Zenati et al. 2018). ALAD's cycle discriminators:
    real is D(x, x), fake D(x, G(E(x))), and likewise for z (Zenati et al. 2018b).
    """
    return called_real(real) + called_fake(fake)


def cycle(real: Tensor, fake: Tensor) -> Tensor:
    """CE(real, 0) + CE(fake, 1): what G and E pay a cycle discriminator (Zenati et al. 2018b).

    The first part does not depend on G or E; it keeps the loss comparable with the authors' code.
    """
    return called_fake(real) + called_real(fake)


def wgan_critic(real: Tensor, fake: Tensor) -> Tensor:
    """mean D(x̃) − mean D(x), to which gradient_penalty belongs (Gulrajani et al. 2017, eq. 3)."""
    return fake.float().mean() - real.float().mean()


def wgan_generator(fake: Tensor) -> Tensor:
    """−mean D(x̃)."""
    return -fake.float().mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], x: Tensor, x_tilde: Tensor, u: Tensor
) -> Tensor:
    """mean (‖∇D(x̂)‖₂ − 1)², x̂ = x + u(x̃ − x), u ~ U(0, 1) of (n, 1, 1, 1), the norm over all
    values of an image (Gulrajani et al. 2017, eq. 3, without λ).

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


def spread(images: Tensor, batch_mean: BatchMean) -> Tensor:
    """How much images differ from each other: the deviation over the batch, mean over pixels."""
    x = images.float()
    return batch_mean((x - batch_mean(x)).square()).sqrt().mean()


def surprise(logit: Tensor) -> Tensor:
    """CE(l, 1) of each image, the score of a discriminator: (n,) -> (n,) in float64."""
    return F.softplus(-logit.double())


# ---------------------------------------------------------------------------- Classes
# D's logits are n×classes, y the labels, int64 (n,).


def of_class(logits: Tensor, y: Tensor) -> Tensor:
    """The logit of each image's own class: n×classes -> n."""
    return logits.gather(1, y[:, None]).squeeze(1)


def classification(real_logits: Tensor, fake_logits: Tensor, y: Tensor) -> Tensor:
    """−L_C = −mean log P(C = y | x) − mean log P(C = y | x̂) (Odena et al. 2017, eq. 3)."""
    real = F.cross_entropy(real_logits.float(), y)
    return real + F.cross_entropy(fake_logits.float(), y)


def source_surprise(real_logits: Tensor) -> Tensor:
    """−log max_c D_src(x, c): n×classes -> n."""
    return F.softplus(-real_logits.float().amax(1))


def class_surprise(class_logits: Tensor) -> Tensor:
    """−log max_c P(c | x): n×classes -> n; 0 where there is one class."""
    return -class_logits.float().log_softmax(1).amax(1)


def joint_surprise(real_logits: Tensor, class_logits: Tensor) -> Tensor:
    """−log max_c [D_src(x, c) · P(c | x)]: n×classes -> n."""
    real = -F.softplus(-real_logits.float())
    return -(real + class_logits.float().log_softmax(1)).amax(1)


# ---------------------------------------------------------------------------- Reconstruction
# x and x̂ are n×c×h×w.


def ssim_map(x: Tensor, x_hat: Tensor) -> Tensor:
    """SSIM at each pixel and channel of images in [0, 1]: n×c×h×w in [-1, 1], h and w above 5.

    SSIM = (2μ_xμ_y + C1)(2σ_xy + C2) / ((μ_x² + μ_y² + C1)(σ_x² + σ_y² + C2)), moments under an
    11×11 Gaussian of σ 1.5 (Wang et al. 2004, eq. 13). The paper stops 5 pixels before the edge;
    here images are mirrored at the edge, so that every pixel has a value.
    """
    x, y = x.float(), x_hat.float()
    products = torch.cat([x, y, x * x, y * y, x * y])
    mu_x, mu_y, xx, yy, xy = gaussian_blur(products, SSIM_SIGMA, SSIM_RADIUS).chunk(5)
    variance_x, variance_y, covariance = xx - mu_x**2, yy - mu_y**2, xy - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    return luminance * (2 * covariance + C2) / (variance_x + variance_y + C2)


def ssim_loss(x: Tensor, x_hat: Tensor) -> Tensor:
    """1 − mean SSIM of images in [0, 1]; 0 for equal images."""
    return 1 - ssim_map(x, x_hat).mean()


def gaussian_blur(images: Tensor, sigma: float, radius: int | None = None) -> Tensor:
    """n×c×h×w -> the same shape, under a Gaussian of σ pixels, mirrored at the edges.

    The window ends at radius pixels, 4σ by default, and always within the image.
    """
    images = images.float()
    n, c, height, width = images.shape
    radius = min(int(4 * sigma + 0.5) if radius is None else radius, height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = window / window.sum()
    # Autocast would convolve in bfloat16, and variances taken as differences would be lost.
    with torch.autocast(images.device.type, enabled=False):
        planes = images.reshape(n * c, 1, height, width)
        planes = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
        planes = F.conv2d(planes, window.view(1, 1, 1, -1))
        planes = F.conv2d(planes, window.view(1, 1, -1, 1))
    return planes.view(n, c, height, width)


def gaussian_nll(x: Tensor, x_hat: Tensor) -> Tensor:
    """−log N(x; x̂, I) of each image, without its constant (d/2)·log 2π: ½ Σ (x − x̂)², (n,).

    A sum, not a mean: a mean over d pixels would multiply β by d (Kingma & Welling 2014, app. C.2).
    """
    return 0.5 * (x.float() - x_hat.float()).square().flatten(1).sum(1)


def kl_by_value(mu: Tensor, log_variance: Tensor) -> Tensor:
    """−½ (1 + log σ_j² − μ_j² − σ_j²) of each value of a code, in nats, in the code's shape."""
    mu, log_variance = mu.float(), log_variance.float()
    # expm1: near the prior, where 1 − σ² would cancel.
    return 0.5 * (mu.square() + log_variance.expm1() - log_variance)


def kl_to_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) of each image, the sum over its code, in nats, (n,).

    Kingma & Welling 2014, app. B.
    """
    return kl_by_value(mu, log_variance).flatten(1).sum(1)


def clamp_log_variance(log_variance: Tensor) -> Tensor:
    """log σ² within ± LOG_VARIANCE_BOUND."""
    return log_variance.float().clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)


def warm_up(number: int, total: int, share: float) -> float:
    """The weight of a term that rises linearly to 1 over the first share of the steps."""
    return 1.0 if number >= share * total else number / (share * total)


# ---------------------------------------------------------------------------- Likelihood
# q is an image's quantised values, p the model.


def quantise(x: Tensor, levels: int) -> Tensor:
    """[-1, 1] of 8-bit pixels -> int64 in 0..levels-1: q = ⌊byte · levels / 256⌋."""
    byte = torch.round((x.float() + 1.0) * 127.5).long().clamp(0, 255)
    return byte * levels // 256


def dequantise(q: Tensor, levels: int) -> Tensor:
    """0..levels-1 -> [-1, 1]: 2q / (levels − 1) − 1; with 256 levels the pixel unchanged."""
    return q.float() * (2.0 / (levels - 1)) - 1.0


def bits(logits: Tensor, q: Tensor) -> Tensor:
    """−log₂ p(q_i | q_<i) of every value: logits n×c×levels×h×w, q n×c×h×w -> n×c×h×w.

    (van den Oord et al. 2016a, eq. 1 and 2: the joint is the product of these conditionals.)
    """
    return F.cross_entropy(logits.float().transpose(1, 2), q, reduction="none") / math.log(2)


def expectation(logits: Tensor) -> Tensor:
    """E[x_i | x_<i] = Σ_k p(k) · (2k / (levels − 1) − 1): n×c×levels×h×w -> n×c×h×w."""
    levels = logits.shape[2]
    values = dequantise(torch.arange(levels, device=logits.device), levels)
    return torch.einsum("nclhw,l->nchw", logits.float().softmax(2), values)


def compressed_bits(q: Tensor) -> Tensor:
    """L(x) of S(x) = −log₂ p(x) − L(x), in bits per value (Serrà et al. 2020, eq. 1).

    q: integers in 0..255 (n, c, h, w), c 1 or 3 -> float64 (n,): the length as a PNG file.
    """
    lengths = []
    for image in q.cpu().numpy().astype(np.uint8):
        file = io.BytesIO()
        picture = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", optimize=True)
        lengths.append(8 * file.tell() / image.size)
    return torch.tensor(lengths, dtype=torch.float64, device=q.device)
