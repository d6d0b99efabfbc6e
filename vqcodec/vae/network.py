# SPDX-License-Identifier: Apache-2.0
"""The variational autoencoder: a Gaussian posterior, a discretised logistic likelihood, and the bounds of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.config import VAEConfig
from vqcodec.nets.blocks import Upsample, blocks, features, initialize

LOG_VARIANCE = (-14.0, 6.0)  # of the posterior
LOG_SCALE = (-3.0, 5.0)  # of the likelihood, in steps of 8-bit pixels
POSTERIOR_START = -6.0  # initial log-variance: little noise at first, or fine detail is given up before it is learned
SCALE_START = 2.0  # initial log-scale
GAIN = 10.0  # of both: they have a way to go from there, which an optimiser's small steps would take too long


class Gaussian(NamedTuple):
    """Diagonal Gaussian.

    Args:
        mean, log_variance: float [N, C, H, W].
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """Draw mean + sigma * eps with eps ~ N(0, I): gradients reach both parameters (Kingma and Welling, section
        2.4)."""
        return self.mean + (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from N(0, I) in nats, [N], in closed form (Kingma and Welling, appendix B)."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)

    def log_density(self, z: Tensor) -> Tensor:
        """Work out log q(z) in nats, [N]."""
        terms = self.log_variance + (z - self.mean).square() * (-self.log_variance).exp() + math.log(2 * math.pi)
        return -0.5 * terms.flatten(1).sum(1)


class Logistic(NamedTuple):
    """Logistic distribution of every pixel, discretised to 0..255 with open ends (Salimans et al. 2017, eq. 2).

    Args:
        mean, log_scale: float [N, 3, H, W], in steps of 8-bit pixels.
    """

    mean: Tensor
    log_scale: Tensor

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        """Work out log P of pixels, whole numbers 0..255 as float [N, 3, H, W] -> nats, of the same shape.

        P(x) = sigmoid(b) - sigmoid(a), a and b the bin's edges; = sigmoid(b) * sigmoid(-a) * (1 - e^(a - b)), which
        loses no digits far from the mean. The bins of 0 and 255 reach to the infinities, so that the sum is one.
        """
        steepness = (-self.log_scale).exp()
        below = F.logsigmoid((pixels + 0.5 - self.mean) * steepness)  # log sigmoid(b)
        above = F.logsigmoid(-(pixels - 0.5 - self.mean) * steepness)  # log sigmoid(-a)
        inside = below + above + torch.log(-torch.expm1(-steepness))
        return torch.where(pixels < 0.5, below, torch.where(pixels > 254.5, above, inside))


class Bound(NamedTuple):
    """A lower bound on log P(image), apart: reconstruction E_q[log P(x|z)] and KL, nats per image, [N] each."""

    reconstruction: Tensor
    kl: Tensor

    def bits_per_dim(self, dims: int) -> Tensor:
        """-ELBO in bits per dimension, [N]; dims: 3 * height * width."""
        return (self.kl - self.reconstruction) / (dims * math.log(2))


class VAE(nn.Module):
    """Auto-encoding variational Bayes (Kingma and Welling 2013) with a fully convolutional encoder and decoder.

    Q(z|x) is a diagonal Gaussian over a map of latents, P(z) = N(0, I), P(x|z) a discretised logistic whose mean and
    scale the decoder gives for every pixel and channel. The objective is E_Q[log P(x|z)] - KL(Q(z|x) || P(z)).
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)  # on 2x2 blocks of pixels
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.encode_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(widths, config.encoder_blocks, strict=True))
        self.posterior = nn.Conv2d(widths[-1], 2 * config.latents, 1)
        self.from_latent = nn.Conv2d(config.latents, widths[-1], 3, padding=1)
        self.decode_blocks = nn.ModuleList(blocks(c, n) for c, n in zip(widths, config.decoder_blocks, strict=True))
        self.up = nn.ModuleList(Upsample(b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.head = nn.Conv2d(widths[0], 24, 3, padding=1)
        initialize(self)
        with torch.no_grad():
            for layer in (self.posterior, self.head):
                layer.weight[layer.out_channels // 2 :] = 0.0

    def encode(self, image: Tensor) -> Gaussian:
        """Encode images, float [N, 3, H, W] in 0..1, H and W multiples of the stride -> Q(z|x), float32 [N, C, H/s,
        W/s]."""
        x = features(image, self.stem, self.down, self.encode_blocks, 2, self.config.stride)[-1]
        mean, raw = self.posterior(x).float().chunk(2, 1)
        return Gaussian(mean, (POSTERIOR_START + GAIN * raw).clamp(*LOG_VARIANCE))

    def decode(self, z: Tensor) -> Logistic:
        """Decode z, float [N, C, h, w], -> P(x|z) for images [N, 3, h * stride, w * stride]."""
        x = self.decode_blocks[-1](self.from_latent(z))
        for up, stack in zip(reversed(self.up), reversed(self.decode_blocks[:-1]), strict=True):
            x = stack(up(x))
        mean, raw = (F.pixel_shuffle(half, 2) for half in self.head(x).float().chunk(2, 1))
        return Logistic(255 * (mean + 0.5), (SCALE_START + GAIN * raw).clamp(*LOG_SCALE))

    def forward(self, image: Tensor) -> Bound:
        """Draw the bound once. image: float [N, 3, H, W] in 0..1, multiples of 1/255."""
        posterior = self.encode(image)
        likelihood = self.decode(posterior.sample())
        pixels = (image.float() * 255).round()
        return Bound(likelihood.log_likelihood(pixels).flatten(1).sum(1), posterior.kl())

    def importance_weighted(self, image: Tensor, samples: int) -> Tensor:
        """Compute the importance-weighted bound log 1/K sum_k P(x, z_k) / Q(z_k|x) (Burda et al. 2016, eq. 8).

        It rises with K to log P(x), and its mean is the ELBO's for K = 1.

        Args:
            image: float [N, 3, H, W] in 0..1.
            samples: K, the number of draws.

        Returns: nats, [N].
        """
        posterior = self.encode(image)
        pixels = (image.float() * 255).round()
        prior = Gaussian(torch.zeros_like(posterior.mean), torch.zeros_like(posterior.mean))
        weights = []
        for _ in range(samples):
            z = posterior.sample()
            log_p = self.decode(z).log_likelihood(pixels).flatten(1).sum(1) + prior.log_density(z)
            weights.append(log_p - posterior.log_density(z))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(samples)
