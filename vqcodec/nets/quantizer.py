# SPDX-License-Identifier: Apache-2.0
"""Residual vector quantisation with codebooks learned by exponential moving averages."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqcodec import parallel
from vqcodec.config import LevelConfig

DECAY = 0.99  # of the codebook's moving averages (van den Oord et al. 2017, appendix A.1)
EPSILON = 1e-5  # Laplace smoothing of the counts, as there
DEAD = 0.02  # a code whose average count falls below this many vectors per batch is restarted
MAX_EXTRA_BITS = 3.0  # code lengths are clamped to log2(K) + this, so that a restarted code keeps a chance


class Quantized(NamedTuple):
    """quantized: float [N, H, W, D], gradient straight through to the input. indices: int64 [N, S, H, W].
    commitment: scalar, mean square of z - sg(quantized) (the beta is the caller's)."""

    quantized: Tensor
    indices: Tensor
    commitment: Tensor


class ResidualQuantizer(nn.Module):
    """S codebooks of K codewords; stage s quantises what stages 0..s-1 left (one stage: plain VQ).

    A vector r becomes the code k that minimises |r - c_k|^2 + rate_weight * bits_k: entropy-constrained vector
    quantisation (Chou, Lookabaugh, Gray 1989) with the order-0 code lengths of the training data; with
    rate_weight = 0 it is the nearest code. Code 0 of every stage but the first is fixed to zero: "nothing to add".

    In training the codebooks follow N_k <- d N_k + (1-d) n_k, m_k <- d m_k + (1-d) sum r, c_k = m_k / N_k (van den
    Oord et al. 2017, eqs. 6-8) with Laplace-smoothed counts; unused codes restart from vectors of the batch (code,
    count and sum together). In evaluation nothing moves.

    Example: S=2, K=4, D=1, codes {0,4,8,12} and {0,1,2,3}: 6.0 is cut to 4 or 8, then 4 + 2 = 6: indices (1, 2).
    """

    codebooks: Tensor
    counts: Tensor
    sums: Tensor
    bits: Tensor
    rate_weight: Tensor

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        s, k, d = level.codebooks, level.codes, level.dim
        self.level = level
        self.enabled = True  # False: the input passes unquantised (warm-up before the k-means init)
        self.register_buffer("codebooks", torch.randn(s, k, d) * 0.1)
        self.register_buffer("counts", torch.ones(s, k))
        self.register_buffer("sums", self.codebooks.clone())
        self.register_buffer("bits", torch.full((s, k), float(torch.tensor(k).log2())))
        self.register_buffer("rate_weight", torch.zeros(()))
        with torch.no_grad():
            self._pin_zero_codes()

    def forward(self, z: Tensor) -> Quantized:
        """z: float [N, H, W, D] -> `Quantized`. Raises ValueError on another shape."""
        if z.dim() != 4 or z.shape[-1] != self.level.dim:
            raise ValueError(f"expected [N, H, W, {self.level.dim}], got {list(z.shape)}")
        n, h, w, d = z.shape
        if not self.enabled:
            empty = torch.zeros(n, self.level.codebooks, h, w, dtype=torch.int64, device=z.device)
            return Quantized(z, empty, z.new_zeros(()))
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            residual = z.detach().reshape(-1, d).float()
            indices = []
            for stage in range(self.level.codebooks):
                index = self.nearest(residual, stage)
                chosen = self.codebooks[stage][index]
                if self.training:
                    self._update(stage, residual, index)
                residual = residual - chosen
                indices.append(index)
            quantized = z.detach().float() - residual.view(n, h, w, d)
        commitment = (z.float() - quantized).square().mean()
        straight_through = z + (quantized.to(z.dtype) - z).detach()
        maps = torch.stack(indices, 1).view(n, h, w, -1).permute(0, 3, 1, 2)
        return Quantized(straight_through, maps, commitment)

    def nearest(self, vectors: Tensor, stage: int) -> Tensor:
        """Index of the best code of a stage for every vector. vectors: float [M, D] -> int64 [M]."""
        codes = self.codebooks[stage]
        # |r - c|^2 without |r|^2, which is the same for all codes
        cost = torch.addmm(codes.square().sum(1) + self.rate_weight * self.bits[stage], vectors, codes.t(), alpha=-2.0)
        return cost.argmin(1)

    def lookup(self, indices: Tensor) -> Tensor:
        """Sum of the chosen codewords. indices: int [N, S, H, W] in 0..K-1 -> float [N, H, W, D]."""
        parts = [self.codebooks[s][indices[:, s].long()] for s in range(self.level.codebooks)]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def initialize(self, vectors: Tensor, iterations: int = 10) -> None:
        """k-means of the residuals, stage by stage. vectors: float [M, D], encoder outputs; all ranks together must
        have at least K of them."""
        residual = vectors.float()
        k, size = self.level.codes, len(residual) * parallel.world()
        if size < k:
            raise ValueError(f"k-means needs at least {k} vectors, got {size}")
        for stage in range(self.level.codebooks):
            codes = parallel.drawn_rows(residual, k, replace=False)
            for _ in range(iterations):
                count, total = self._totals(residual, torch.cdist(residual, codes).argmin(1))
                codes = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], codes)
            self.codebooks[stage] = codes
            self._pin_zero_codes()
            index = self.nearest(residual, stage)
            count, _ = self._totals(residual, index)
            self.counts[stage] = count * (4096 / size) + DEAD
            self.sums[stage] = self.codebooks[stage] * self.counts[stage][:, None]
            residual = residual - self.codebooks[stage][index]
        self._update_bits()

    def _totals(self, residual: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """How many vectors of the joint batch chose each code, [K], and their sums, [K, D]."""
        ones = residual.new_ones(len(residual), 1)
        both = residual.new_zeros(self.level.codes, self.level.dim + 1)
        both = parallel.total(both.index_add_(0, index, torch.cat([ones, residual], 1)))
        return both[:, 0], both[:, 1:]

    def _update(self, stage: int, residual: Tensor, index: Tensor) -> None:
        """Equations 6 to 8 for one batch. residual: float [M, D], index: int64 [M]."""
        k = self.level.codes
        count, total = self._totals(residual, index)
        self.counts[stage].mul_(DECAY).add_(count, alpha=1 - DECAY)
        self.sums[stage].mul_(DECAY).add_(total, alpha=1 - DECAY)
        size = self.counts[stage].sum()
        smoothed = (self.counts[stage] + EPSILON) / (size + k * EPSILON) * size
        self.codebooks[stage] = self.sums[stage] / smoothed[:, None]
        self._restart_dead(stage, residual)
        self._pin_zero_codes()
        if stage == self.level.codebooks - 1:
            self._update_bits()

    def _restart_dead(self, stage: int, residual: Tensor) -> None:
        """Move unused codes onto live residuals; count and sum go along, or the next average would undo it."""
        dead = self.counts[stage] < DEAD
        if stage > 0:
            dead[0] = False
        number = int(dead.sum())
        if number:
            fresh = parallel.drawn_rows(residual, number)
            live = self.counts[stage].mean().clamp(min=1.0)
            self.codebooks[stage, dead] = fresh
            self.counts[stage, dead] = live
            self.sums[stage, dead] = fresh * live

    def _pin_zero_codes(self) -> None:
        self.codebooks[1:, 0] = 0.0
        self.sums[1:, 0] = 0.0

    def _update_bits(self) -> None:
        share = self.counts / self.counts.sum(1, keepdim=True)
        limit = float(torch.tensor(self.level.codes).log2()) + MAX_EXTRA_BITS
        self.bits.copy_((-share.clamp(min=1e-9).log2()).clamp(max=limit))
