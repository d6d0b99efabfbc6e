# SPDX-License-Identifier: Apache-2.0
"""A start for autoencoders whose resampling does not overlap: a linear hierarchical transform code.

Every layer outside the residual blocks becomes a projection onto principal components (Karhunen-Loeve transform) and,
on the way back, its transpose; every level codes what the coarser ones leave of its features. Training refines that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.blocks import LevelNorm


def principal(vectors: Tensor, number: int) -> Tensor:
    """Find the directions of most energy.

    Args:
        vectors: float [M, D].
        number: of directions; beyond D they are zero.

    Returns: orthonormal rows [number, D], strongest first.
    """
    energy = vectors.double().t() @ vectors.double()
    rows = torch.linalg.eigh(energy).eigenvectors.flip(1).t().float()[:number]
    return F.pad(rows, (0, 0, 0, number - len(rows)))


def _positions(maps: Tensor) -> Tensor:
    """[N, C, H, W] -> [N * H * W, C]."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _set_middle(conv: nn.Conv2d, matrix: Tensor) -> None:
    """All of a kernel zero but its middle."""
    conv.weight.zero_()
    conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] = matrix
    if conv.bias is not None:
        conv.bias.zero_()


def _set_bias(conv: nn.Conv2d, bias: Tensor) -> None:
    assert conv.bias is not None
    conv.bias.copy_(bias)


def _convolutions(modules: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a list or stack that are not within a residual block."""
    return [module for module in modules.children() if isinstance(module, nn.Conv2d)]


@torch.no_grad()
def start(model: Autoencoder, image: Tensor) -> None:
    """Set the weights of a new autoencoder.

    Args:
        model: not trained yet, with `norm` "level" and without `overlap`.
        image: float [N, 3, H, W] in 0..1, crops of photographs; at least as many positions at the coarsest stride as
            the widest level has channels.
    """
    config = model.config
    model.eval()
    patches = F.pixel_unshuffle(image - 0.5, config.patch)
    basis = principal(_positions(patches), config.widths[0])
    _set_middle(model.stem, basis)
    _set_middle(model.head, basis.t())
    features = [model.encode_blocks[0](model.stem(patches))]
    for i, (down, up) in enumerate(zip(_convolutions(model.down), model.up, strict=True)):
        blocks = F.pixel_unshuffle(features[-1], 2)  # channel c * 4 + dy * 2 + dx
        basis = principal(_positions(blocks), config.widths[i + 1])
        down.weight.copy_(basis.unflatten(1, (-1, 2, 2)))
        _set_bias(down, basis.new_zeros(len(basis)))
        _set_middle(_convolutions(up)[0], basis.t())
        features.append(model.encode_blocks[i + 1](down(features[-1])))
    state: Tensor | None = None
    ways = zip(config.levels, model.to_latent, _convolutions(model.from_latent), model.normalize, strict=True)
    for i, (level, way, back, norm) in enumerate(ways):
        here = features[config.strides.index(level.stride)]
        first, last = _convolutions(way)
        identity = torch.eye(here.shape[1], device=here.device)
        _set_middle(first, identity if state is None else torch.cat([identity, -identity], 1))
        left = here if state is None else here - state
        basis = principal(_positions(left), level.dim)
        _set_middle(last, basis)
        z = last(left)
        assert isinstance(norm, LevelNorm)
        norm.running_mean.copy_(z.mean((0, 2, 3)))
        norm.running_var.copy_((z - norm.running_mean[:, None, None]).square().mean())
        inverse = basis.t() * norm.running_var.sqrt()
        _set_middle(back, inverse if state is None else torch.cat([inverse, identity], 1))
        _set_bias(back, basis.t() @ norm.running_mean)
        state = model.descend(i, norm(z), state)
    model.train()
