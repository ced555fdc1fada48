"""The training loop of GANomaly that a reader of the paper writes: float32, a DataLoader, the
authors' order of updates. It knows no Ray."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ganad.detectors.gan.ganomaly import Ganomaly


def plain_loop(
    networks: Ganomaly, pixels: np.ndarray, batch_size: int, device: str = "cpu"
) -> Callable[[int], None]:
    """A function that makes so many steps on pixels, uint8 (n, c, h, w), and waits for them."""
    networks.train().to(device)
    parts = (networks.encoder1, networks.decoder, networks.encoder2)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    g_adam = torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))
    d_adam = torch.optim.Adam(networks.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    loader = DataLoader(
        TensorDataset(torch.from_numpy(pixels)), batch_size, shuffle=True, drop_last=True
    )

    def step(images: Tensor) -> None:
        x = images.to(device).float() / 127.5 - 1
        z = networks.encoder1(x)
        x_hat = networks.decoder(z)
        z_hat = networks.encoder2(x_hat)
        real, real_features = networks.discriminator(x)
        fake, _ = networks.discriminator(x_hat.detach())

        g_adam.zero_grad()
        features, features_hat = networks.discriminator(x)[1], networks.discriminator(x_hat)[1]
        loss = F.mse_loss(features_hat, features) + 50 * F.l1_loss(x_hat, x) + F.mse_loss(z_hat, z)
        loss.backward()
        g_adam.step()

        d_adam.zero_grad()
        ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
        bce = F.binary_cross_entropy_with_logits
        d_loss = (bce(real, ones) + bce(fake, zeros)) / 2
        d_loss.backward()
        d_adam.step()
        loss.item(), d_loss.item()

    def make(num: int) -> None:
        done = 0
        while done < num:
            for (images,) in loader:
                step(images)
                done += 1
                if done == num:
                    break

    return make
