"""Losses and errors of methods that rebuild images: one pure function per equation.

n is the batch, x an image, x̂ its reconstruction, both n×c×h×w. All results are float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_VARIANCE_BOUND = 10.0
"""log σ² is kept within ± this: exp overflows float32 at 88, and long before that KL is absurd."""
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
"""The 11×11 Gaussian window of Wang et al. 2004."""
C1, C2 = 0.01**2, 0.03**2
"""Stabilisers of SSIM for values in [0, 1] (Wang et al. 2004, eq. 13, with L = 1)."""


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """mean (x − x̂)²."""
    return F.mse_loss(x_hat.float(), x.float())


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

    The window ends at radius pixels, 4σ unless given, and always within the image.
    """
    images = images.float()
    n, c, height, width = images.shape
    radius = min(int(4 * sigma + 0.5) if radius is None else radius, height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = window / window.sum()
    # Autocast would convolve in bfloat16, and variances taken as differences would drown in it.
    with torch.autocast(images.device.type, enabled=False):
        planes = images.reshape(n * c, 1, height, width)
        planes = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
        planes = F.conv2d(planes, window.view(1, 1, 1, -1))
        planes = F.conv2d(planes, window.view(1, 1, -1, 1))
    return planes.view(n, c, height, width)


def gaussian_nll(x: Tensor, x_hat: Tensor) -> Tensor:
    """−log N(x; x̂, I) per image, without its constant (d/2)·log 2π: ½ Σ (x − x̂)², (n,).

    A sum, not a mean: a mean over d pixels would multiply β by d (Kingma & Welling 2014, app. C.2).
    """
    return 0.5 * (x.float() - x_hat.float()).square().flatten(1).sum(1)


def kl_to_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) = −½ Σ_j (1 + log σ_j² − μ_j² − σ_j²) per image, in nats, (n,).

    Kingma & Welling 2014, app. B.
    """
    mu, log_variance = mu.float(), log_variance.float()
    # expm1: near the prior, where 1 − σ² would cancel.
    return 0.5 * (mu.square() + log_variance.expm1() - log_variance).flatten(1).sum(1)


def clamp_log_variance(log_variance: Tensor) -> Tensor:
    """log σ² within ± LOG_VARIANCE_BOUND."""
    return log_variance.float().clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)


def warm_up(number: int, total: int, share: float) -> float:
    """The weight of a term that rises linearly to 1 over the first share of the steps."""
    return 1.0 if number >= share * total else number / (share * total)
