# SPDX-License-Identifier: Apache-2.0
"""A model on one device: its networks, and how it cuts an image into tiles and groups of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqcodec.config import ModelConfig
from vqcodec.errors import ModelError, boundary
from vqcodec.exact import settings
from vqcodec.exact.check import check_device
from vqcodec.exact.network import IntegerPrior
from vqcodec.format.container import IDENTITY_BYTES
from vqcodec.model import lambdas, loading, readouts, schema, weights
from vqcodec.model.maps import IndexMaps
from vqcodec.model.registry import ModelFile
from vqcodec.model.tiling import Tiling
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.blank import blank

if TYPE_CHECKING:
    from typing_extensions import Self


class Model:
    """A float autoencoder and integer priors, one a level, on one device.

    What it codes are the `IndexMaps` of an image.
    """

    def __init__(self, config: ModelConfig, tensors: dict[str, Tensor], device: str = "cpu") -> None:
        """Build the networks.

        Args:
            config: of the model.
            tensors: `autoencoder.*` (float) and `prior.LEVEL.*` (integers).
            device: as PyTorch names it.

        Raises ModelError if the tensors do not fit, ExactnessError if the device is not exact.
        """
        self.config = config
        self.device = torch.device(device)
        self.name = ""
        self.readouts: dict[int, Tensor] = {}  # of `preview`, by level
        self.identity = bytes(IDENTITY_BYTES)
        check_device(self.device)
        schema.check_priors(config)
        with settings.needed():
            self._build(config, tensors)

    def _build(self, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
        levels = config.autoencoder.levels
        with blank():
            self.autoencoder = Autoencoder(config.autoencoder)
        loading.fit(self.autoencoder, weights.part(tensors, "autoencoder"), "autoencoder")
        self.autoencoder.eval().to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.priors = [
            IntegerPrior(prior, level, levels[:i], weights.part(tensors, f"prior.{i}"), self.device)
            for i, (prior, level) in enumerate(zip(config.priors, levels, strict=True))
        ]

    @classmethod
    @boundary()
    def load(cls, model: ModelFile, device: str = "auto") -> Self:
        """Read a weights file.

        Args:
            model: the file, from `registry.find`.
            device: auto (a GPU if there is one), cpu or cuda.

        Raises ModelError if it is none of a codec model, ExactnessError if the device is not exact.
        """
        with settings.needed():
            file = loading.read_codec(model.path)
        loaded = cls(file.config, file.tensors, pick_device(device))
        loaded.name, loaded.identity = model.name, file.identity
        loaded.readouts = readouts.load(model.path, file.identity)
        return loaded

    def __repr__(self) -> str:
        strides = ", ".join(str(level.stride) for level in self.config.autoencoder.levels)
        name = f"{self.name or 'unnamed'} ({self.identity.hex()})"
        return f"<{type(self).__name__} {name} on {self.device}, strides {strides}>"

    @property
    def tile_size(self) -> int:
        """Side of a tile, in pixels: what the priors see at once."""
        return self.config.tile_size

    def tradeoff(self, lmbda: float) -> int:
        """Work out where a weight of a bit lies in the model's range of lambdas, 0 to 255; 0 for all of them if the
        model does not look at it. See `lambdas.tradeoff`."""
        looks = self.config.autoencoder.gains or any(prior.tradeoffs for prior in self.config.priors)
        return lambdas.tradeoff(self.config, lmbda) if looks else 0

    def tiling(self, level: int, width: int, height: int, per_group: int | None = None) -> Tiling:
        """Cut the maps of a level into tiles, in groups.

        Args:
            level: number of the level, 0 for the coarsest.
            width: of the image, in pixels.
            height: of the image, in pixels.
            per_group: tiles that share a stream; None: as many as this version writes.
        """
        auto = self.config.autoencoder
        return Tiling(width, height, self.config.tile_size, auto.coarsest, auto.levels[level].stride, per_group)

    def tilings(self, width: int, height: int, per_group: int | None = None) -> list[Tiling]:
        """Cut the maps of all levels into tiles, coarsest first: see `tiling`.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
            per_group: tiles that share a stream; None: as many as this version writes.
        """
        return [self.tiling(level, width, height, per_group) for level in range(len(self.priors))]

    def groups(self, width: int, height: int) -> list[slice]:
        """List the tiles of an image by the streams that they share.

        Args:
            width: of the image, in pixels.
            height: of the image, in pixels.
        """
        return self.tiling(0, width, height).groups

    def split(self, maps: IndexMaps) -> list[Tensor]:
        """Cut index maps into tiles: by level int64 [tiles, maps, h, w]."""
        return [tiling.split(m) for tiling, m in zip(self.tilings(*maps.size), maps.levels, strict=True)]


def pick_device(name: str) -> str:
    """Pick the device that auto, cpu or cuda stands for. Raises ModelError if there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"there is no device called {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("the device cuda was asked for, but PyTorch finds no CUDA GPU")
    return str(device)
