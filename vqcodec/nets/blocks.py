# SPDX-License-Identifier: Apache-2.0
"""What the autoencoders are built of: residual blocks, sub-pixel upsampling, the norm of latents, initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqcodec.nets import parallel


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), [N x C x H x W] to the same; half the channels inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels // 2, 3, padding=1)
        self.outer = nn.Conv2d(channels // 2, channels, 1)
        nn.init.normal_(self.outer.weight, std=0.02)
        nn.init.zeros_(self.outer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(F.relu(self.inner(F.relu(x))))


def blocks(channels: int, number: int) -> nn.Sequential:
    """Stack residual blocks.

    Args:
        channels: of every block.
        number: of blocks.
    """
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(number)))


class Upsample(nn.Module):
    """Factor two by sub-pixel convolution (Shi et al. 2016): [N x C x H x W] -> [N x C' x 2H x 2W]."""

    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class _Standardized(torch.autograd.Function):
    """(x - mean) * scale; the gradient loses what would only make the result larger or smaller as a whole."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        y = (x - mean[:, None, None]) * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        y, scale = ctx.saved_tensors
        (grad,) = grads
        along, energy = parallel.total(torch.stack([(grad * y).sum(), y.square().sum()]))
        return (grad - y * (along / energy.clamp(min=1e-12))) * scale, None, None


class LevelNorm(nn.Module):
    """Zero mean of every channel and unit variance of all channels together, by running statistics: [N x C x H x W] to
    the same.

    Those of a batch would do harm: a few crops differ in their mean brightness by more than the codes are precise to,
    and what is subtracted with a batch's mean no decoder can know. As the statistics are no function of the weights,
    the gradient of the scale is taken out; it would grow without end.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.02, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                size = x.numel() // x.shape[1] * parallel.world()
                mean = parallel.total(x.sum((0, 2, 3))) / size
                away = (x - self.running_mean[:, None, None]).square().sum((0, 2, 3))
                variance = (parallel.total(away) / size).mean()
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance, self.momentum)
        scale = (self.running_var + self.eps).rsqrt()
        result: Tensor = _Standardized.apply(x, self.running_mean.clone(), scale)
        return result


class Gains(nn.Module):
    """Channels times gains that depend on the trade-off: exponentials, interpolated between learned
    vectors at equal distances (Cui et al. 2021, section 3.2). [N x C x H x W] to the same."""

    def __init__(self, points: int, channels: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(points, channels))

    def forward(self, x: Tensor, tradeoffs: Tensor) -> Tensor:
        """Multiply channels by the gains of a trade-off, interpolated between the learned vectors.

        Args:
            x: float [N, C, h, w].
            tradeoffs: float [N] or [1] in 0..1.
        """
        return x * self.at(tradeoffs).exp()[:, :, None, None].to(x.dtype)

    def at(self, tradeoffs: Tensor) -> Tensor:
        """Interpolate the logarithms of the gains between the learned vectors.

        Args:
            tradeoffs: float [N] in 0..1.

        Returns: float [N, C].
        """
        position = tradeoffs.clamp(0, 1) * (len(self.logs) - 1)
        below = position.floor().clamp(max=max(0, len(self.logs) - 2)).long()
        weight = (position - below)[:, None]
        above = (below + 1).clamp(max=len(self.logs) - 1)
        return self.logs[below] * (1 - weight) + self.logs[above] * weight


def features(
    image: Tensor,
    stem: Callable[[Tensor], Tensor],
    down: nn.ModuleList,
    stacks: nn.ModuleList,
    patch: int,
    multiple: int,
) -> list[Tensor]:
    """Compute an encoder's features at strides patch, 2 * patch, ...: a stem on blocks of pixels, then blocks a stride.

    Args:
        image: float [N, 3, H, W] in 0..1.
        stem: takes patch x patch pixels as channels, [N, 3 * patch^2, h, w].
        down: halves height and width, one a step.
        stacks: blocks of every stride, finest first.
        patch: side of a block of pixels.
        multiple: that H and W must be multiples of.

    Returns: float [N, C, h, w], finest first.

    Raises: ValueError on another shape.
    """
    if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % multiple or image.shape[3] % multiple:
        raise ValueError(f"expected [N, 3, H, W] with H, W multiples of {multiple}, got {list(image.shape)}")
    outputs = [stacks[0](stem(F.pixel_unshuffle(image - 0.5, patch)))]
    for step, stack in zip(down, list(stacks)[1:], strict=True):
        outputs.append(stack(step(outputs[-1])))
    return outputs


class LatentNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe, Szegedy 2015) with the statistics of the joint batch of all processes, on any device
    (PyTorch's SyncBatchNorm needs GPUs). [N x C x H x W] to the same; used without affine parameters."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or parallel.world() == 1:
            return super().forward(input)
        size = input.numel() // input.shape[1] * parallel.world()
        sums = torch.stack([input.sum((0, 2, 3)), input.square().sum((0, 2, 3))])
        mean, square = parallel.total_with_gradient(sums) / size
        variance = square - mean.square()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (size / (size - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt()
        return (input - mean[:, None, None]) * scale[:, None, None]


def initialize(network: nn.Module) -> None:
    """Start the path outside the residual blocks as orthogonal maps of pixel blocks, so that it keeps nearly all of the
    image: a linear transform code, which training then refines. The blocks follow He et al. 2015.

    Convolutions whose name begins with `down` are taken to have 4x4 or 2x2 kernels and stride 2."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or name.endswith("outer"):
            continue
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if name.endswith("inner"):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            continue
        first = (module.kernel_size[0] - 1) // 2
        middle = slice(first, first + (2 if name.startswith("down") else 1))
        with torch.no_grad():
            core = torch.empty_like(module.weight[:, :, middle, middle])
            nn.init.orthogonal_(core)
            module.weight.zero_()
            module.weight[:, :, middle, middle] = core
