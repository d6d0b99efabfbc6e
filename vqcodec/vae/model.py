# SPDX-License-Identifier: Apache-2.0
"""A trained VAE, ready to reconstruct, sample, interpolate and be measured. It is no codec: its latents are real."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqcodec.config import VAEConfig
from vqcodec.errors import ModelError
from vqcodec.images.types import Pixels
from vqcodec.model import loading, registry, weights
from vqcodec.nets.blank import blank
from vqcodec.nets.quality import psnr
from vqcodec.vae.network import VAE


@dataclass(frozen=True)
class VAEFigures:
    """Of one image, in bits per dimension of its 8-bit pixels: reconstruction + kl = elbo, an upper bound on the
    negative log-likelihood from one draw.

    Args:
        importance_weighted: the tighter bound from several draws, None if not asked for.
        psnr: dB, of the reconstruction from the posterior mean.
    """

    elbo: float
    reconstruction: float
    kl: float
    importance_weighted: float | None
    psnr: float


class VAEModel:
    """A VAE from a weights file, on one device. Images are uint8 [H, W, 3] of any size; they are padded to multiples of
    the stride by repeating their edge, but measured as they are (see `figures`)."""

    def __init__(self, config: VAEConfig, tensors: dict[str, Tensor], device: str = "cpu") -> None:
        """tensors: `vae.*`. Raises ModelError if they do not fit."""
        self.config = config
        self.device = torch.device(device)
        self.name = ""
        with blank():
            self.network = VAE(config)
        loading.fit(self.network, weights.part(tensors, "vae"), "VAE")
        self.network.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, model: registry.ModelFile, device: str = "cpu") -> VAEModel:
        """Read a weights file.

        Args:
            model: the file.
            device: to compute on.

        Raises: ModelError if it is none of a VAE.
        """
        file = loading.read_vae(model.path, VAE)
        loaded = cls(file.config, file.tensors, device)
        loaded.name = model.name
        return loaded

    @property
    def tile_size(self) -> int:
        """Side of the squares that it was trained on, pixels."""
        return self.config.tile_size

    @torch.inference_mode()
    def sample(self, width: int = 64, height: int = 64, *, seed: int = 0, temperature: float = 1.0) -> Image.Image:
        """Draw an image: z ~ temperature * N(0, I) into the decoder; the mean of P(x|z).

        Args:
            width: in pixels.
            height: in pixels.
            seed: from 0, of Python's generator: it gives the same latents everywhere (pixels may differ by 1 between
                devices).
            temperature: above 0, 1 for the model's distribution.

        Raises ValueError on other arguments.
        """
        if width < 1 or height < 1 or not temperature > 0:
            raise ValueError(f"width, height and temperature must be positive, got {width}x{height}, {temperature}")
        generator = random.Random(seed)
        shape = (1, self.config.latents, -(-height // self.config.stride), -(-width // self.config.stride))
        values = [generator.gauss(0.0, temperature) for _ in range(math.prod(shape))]
        return Image.fromarray(self._pixels(torch.tensor(values).view(shape))[:height, :width])

    def images(self, width: int, height: int, seeds: Sequence[int], temperature: float = 1.0) -> Iterator[Image.Image]:
        """Draw images: see `sampling.Sampler`.

        Args:
            width: in pixels.
            height: in pixels.
            seeds: one an image.
            temperature: above 0, 1 for the model's distribution.
        """
        for seed in seeds:
            yield self.sample(width, height, seed=seed, temperature=temperature)

    @torch.inference_mode()
    def reconstruct(self, pixels: Pixels) -> Pixels:
        """Compute the mean of P(x|z) at the mean of Q(z|x)."""
        height, width = pixels.shape[:2]
        return self._pixels(self._encode(pixels))[:height, :width]

    @torch.inference_mode()
    def interpolate(self, a: Pixels, b: Pixels, steps: int = 8) -> list[Pixels]:
        """Decode latents from that of one image to that of another, ends included.

        On the great circle, not the chord: latents of N(0, I) lie near a sphere (White 2016, section 3.1).

        Args:
            a: uint8 [H, W, 3].
            b: of the same size.
            steps: number of pictures, from 2.

        Raises: ValueError on other arguments.
        """
        if a.shape != b.shape or steps < 2:
            raise ValueError(f"two images of one size and two steps are needed, got {a.shape}, {b.shape}, {steps}")
        height, width = a.shape[:2]
        first, last = self._encode(a), self._encode(b)
        cosine = (first * last).sum() / (first.norm() * last.norm())
        angle = float(torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6)))
        pictures = []
        for i in range(steps):
            t = i / (steps - 1)
            z = (math.sin((1 - t) * angle) * first + math.sin(t * angle) * last) / math.sin(angle)
            pictures.append(self._pixels(z)[:height, :width])
        return pictures

    @torch.inference_mode()
    def figures(self, pixels: Pixels, *, samples: int = 0, seed: int = 0) -> VAEFigures:
        """Measure bounds and PSNR of an image, cropped to multiples of the stride so that no padding is counted.

        Args:
            pixels: uint8 [H, W, 3].
            samples: draws for the importance-weighted bound; 0: leave it out.
            seed: of the draws.

        Raises: ValueError on an image smaller than the stride.
        """
        height, width = (n - n % self.config.stride for n in pixels.shape[:2])
        if not height or not width:
            raise ValueError(f"the image must be at least {self.config.stride} pixels in both directions")
        image = self._image(pixels[:height, :width])
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return figures(self.network, image, samples)

    def _image(self, pixels: Pixels) -> Tensor:
        image = torch.from_numpy(np.array(pixels)).to(self.device).permute(2, 0, 1)[None].float() / 255
        return image.contiguous(memory_format=torch.channels_last)

    def _encode(self, pixels: Pixels) -> Tensor:
        height, width = pixels.shape[:2]
        stride = self.config.stride
        padded = np.pad(pixels, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="edge")
        mean: Tensor = self.network.encode(self._image(padded)).mean
        return mean

    def _pixels(self, z: Tensor) -> Pixels:
        mean = self.network.decode(z.to(self.device)).mean
        if not bool(torch.isfinite(mean).all()):
            raise ModelError(f"model {self.name} decodes to no finite picture")
        return np.ascontiguousarray(mean[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy())


@torch.inference_mode()
def figures(network: VAE, image: Tensor, samples: int = 0) -> VAEFigures:
    """Measure an image, with draws of torch's generator.

    Args:
        network: the VAE.
        image: float [1, 3, H, W] in 0..1, sides multiples of the stride.
        samples: draws for the importance-weighted bound; 0: leave it out.
    """
    bound = network(image)
    tight = network.importance_weighted(image, samples) if samples else None
    bits = image.numel() * math.log(2)
    reconstruction, kl = -bound.reconstruction.item() / bits, bound.kl.item() / bits
    decoded = network.decode(network.encode(image).mean).mean
    weighted = None if tight is None else -tight.item() / bits
    return VAEFigures(reconstruction + kl, reconstruction, kl, weighted, psnr(decoded, image * 255))


def mean_figures(figures: Sequence[VAEFigures]) -> VAEFigures:
    """Means over images."""
    weighted = [f.importance_weighted for f in figures if f.importance_weighted is not None]
    return VAEFigures(
        elbo=sum(f.elbo for f in figures) / len(figures),
        reconstruction=sum(f.reconstruction for f in figures) / len(figures),
        kl=sum(f.kl for f in figures) / len(figures),
        importance_weighted=sum(weighted) / len(weighted) if weighted else None,
        psnr=sum(f.psnr for f in figures) / len(figures),
    )
