"""Generator, discriminator and heads that know the class of an image: ACGAN's pyramids (Odena et
al. 2017, appendix A), with conditional batch-norm and a choice of heads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ganad.networks.dcgan import LEAK
from ganad.networks.initialisation import dcgan_init


class ConditionalBatchNorm2d(nn.Module):
    """Batch-norm whose scale and shift are looked up by class (Dumoulin et al. 2017, §2.2)."""

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features, affine=False)
        self.scale = nn.Embedding(num_classes, features)
        self.shift = nn.Embedding(num_classes, features)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        scale, shift = self.scale(labels)[:, :, None, None], self.shift(labels)[:, :, None, None]
        return self.norm(features) * scale + shift


class ConditionalGenerator(nn.Module):
    """Noise n×latent×1×1 and labels n -> images n×channels×S×S in [-1, 1].

    A 4×4 map, then 5×5 transposed convolutions of stride 2. The last hidden layer has `width`
    features and each before it twice as many, up to 8·width: at 32 pixels 4·, 2· and 1·width, the
    384, 192 and 96 of the paper.
    """

    def __init__(
        self, image_size: int, channels: int, width: int, latent: int, num_classes: int
    ) -> None:
        super().__init__()
        num_hidden = image_size.bit_length() - 3  # sides 4 to S/2
        widths = [width * min(2**i, 8) for i in reversed(range(num_hidden))]
        convolutions: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for before, after in zip(widths, widths[1:], strict=False):
            convolutions.append(nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False))
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(wide, num_classes) for wide in widths)
        self.last = nn.ConvTranspose2d(widths[-1], channels, 5, 2, 2, 1)
        for part in self.modules():
            if isinstance(part, nn.ConvTranspose2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        hidden = noise
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.relu(norm(convolution(hidden), labels))
        return self.last(hidden).tanh()


def discriminator_features(
    image_size: int, channels: int, width: int, dropout: float, batch_norm: bool
) -> tuple[nn.Sequential, int]:
    """Images -> n×f×4×4, and f: pairs of 3×3 convolutions of stride 2 and 1.

    Each has twice the features of the one before it, `width` to 32·width: at 32 pixels the 16 to
    512 of the paper. LeakyReLU and dropout after each, batch-norm, if any, in all but the first.
    """
    modules: list[nn.Module] = []
    num_layers = 2 * (image_size.bit_length() - 3)
    before = channels
    for layer in range(num_layers):
        after = width * min(2**layer, 32)
        normed = batch_norm and layer > 0
        modules.append(nn.Conv2d(before, after, 3, 2 - layer % 2, 1, bias=not normed))
        if normed:
            modules.append(nn.BatchNorm2d(after))
        modules += [nn.LeakyReLU(LEAK, inplace=True), nn.Dropout(dropout)]
        before = after
    return nn.Sequential(*modules), before


class ProjectionHead(nn.Module):
    """Logit of "real, given class c" = ψ·φ + V_c·φ, φ the features summed over space (Miyato and
    Koyama 2018, eq. 3). Features n×f×4×4 -> (real n×classes, classes n×classes).

    V_c·φ stands for log P(c|x) up to a constant, as far as the generator is well trained (ibid.,
    eq. 2).
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.source = nn.Conv2d(features, 1, 1)
        self.classes = nn.Conv2d(features, num_classes, 1, bias=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.sum((2, 3), keepdim=True)
        classes = self.classes(pooled).flatten(1)
        return self.source(pooled).flatten(1) + classes, classes


class AuxiliaryHead(nn.Module):
    """ACGAN's two linear heads: "real" whatever the class, and log P(c|x) up to a constant.

    Features n×f×4×4 -> (real n×classes, all columns alike; classes n×classes).
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.source = nn.Conv2d(features, 1, 4)
        self.classes = nn.Conv2d(features, num_classes, 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        classes = self.classes(features).flatten(1)
        return self.source(features).flatten(1).expand_as(classes), classes


class ConditionalDiscriminator(nn.Module):
    """Images -> (logits of "real, given class c" n×classes, logits of the classes n×classes)."""

    def __init__(
        self,
        image_size: int,
        channels: int,
        width: int,
        num_classes: int,
        dropout: float,
        batch_norm: bool,
        auxiliary: bool,
    ) -> None:
        super().__init__()
        self.features, wide = discriminator_features(
            image_size, channels, width, dropout, batch_norm
        )
        head = AuxiliaryHead if auxiliary else ProjectionHead
        self.head: nn.Module = head(wide, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.features(images))


def discriminator_init(discriminator: nn.Module) -> None:
    """dcgan_init; without batch-norm, which would rescale them, kernels of the features by fan-in.

    (He et al. 2015, eq. 15: the signal keeps its size through layers of LeakyReLU.)
    """
    dcgan_init(discriminator)
    if any(isinstance(part, nn.BatchNorm2d) for part in discriminator.modules()):
        return
    assert isinstance(discriminator.features, nn.Sequential)
    for part in discriminator.features:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, LEAK)
