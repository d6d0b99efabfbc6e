# SPDX-License-Identifier: Apache-2.0
"""Residual vector quantisation with codebooks learned by exponential moving averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vqcodec import parallel
from vqcodec.config import LevelConfig

DECAY = 0.99  # of the codebook's moving averages (van den Oord et al. 2017, appendix A.1)
EPSILON = 1e-5  # Laplace smoothing of the counts, as there
DEAD = 0.02  # a code whose average count falls below this many vectors per batch is restarted
MAX_EXTRA_BITS = 3.0  # code lengths are clamped to log2(K) + this, so that a restarted code keeps a chance


class CodeLengths(Protocol):
    """What every code costs at each of M positions, given the codes that the stages before have there."""

    def bits(self, stage: int, told: Tensor | None) -> Tensor:
        """float [..., M, K] or [K]. told: sum of `told` over the stages before, None for the first."""

    def told(self, stage: int, index: Tensor) -> Tensor:
        """What the index of a stage, int64 [..., M], tells the later ones: float [..., M, C]."""


class OrderZero:
    """The same cost everywhere: code lengths of one table per stage, float [S, K]."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def bits(self, stage: int, told: Tensor | None) -> Tensor:
        return self.table[stage]

    def told(self, stage: int, index: Tensor) -> Tensor:
        return self.table.new_zeros(())


class Quantized(NamedTuple):
    """quantized: float [N, H, W, D], gradient straight through to the input. indices: int64 [N, S, H, W].
    commitment: float [N], mean square of z - sg(quantized) (the beta is the caller's)."""

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

    def forward(
        self, z: Tensor, rate_weights: Tensor | None = None, refine: Callable[[Tensor], CodeLengths] | None = None
    ) -> Quantized:
        """z: float [N, H, W, D] -> `Quantized`. Raises ValueError on another shape.

        rate_weights: float [N], in place of `rate_weight`. refine: gives the code lengths in the context of maps, int64
        [N, S, H, W]: codes are then chosen a second time, by them.
        """
        if z.dim() != 4 or z.shape[-1] != self.level.dim:
            raise ValueError(f"expected [N, H, W, {self.level.dim}], got {list(z.shape)}")
        n, h, w, _ = z.shape
        if not self.enabled:
            empty = torch.zeros(n, self.level.codebooks, h, w, dtype=torch.int64, device=z.device)
            return Quantized(z, empty, z.new_zeros(n))
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            latents = z.detach().float()
            lengths = None
            if refine is not None:
                lengths = refine(self.choose(latents, rate_weights)[0])
            maps, residual = self.choose(latents, rate_weights, lengths, update=self.training)
            quantized = latents - residual
        commitment = (z.float() - quantized).square().mean((1, 2, 3))
        straight_through = z + (quantized.to(z.dtype) - z).detach()
        return Quantized(straight_through, maps, commitment)

    @torch.no_grad()
    def choose(
        self,
        z: Tensor,
        rate_weights: Tensor | None = None,
        lengths: CodeLengths | None = None,
        *,
        update: bool = False,
        beam: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """z: float [N, H, W, D] -> indices int64 [N, S, H, W], and what they leave of z, like it.

        rate_weights: float [N] or [N, H, W], in place of `rate_weight`; lengths: in place of the order-0 ones. update:
        let the codebooks follow. beam: partial choices that are kept from stage to stage, by their cost so far.
        """
        if beam > 1:
            return self._choose_beam(z, rate_weights, lengths, beam)
        n, h, w, d = z.shape
        residual = z.reshape(-1, d)
        weights = self._weights(rate_weights, n, h, w)
        costs = OrderZero(self.bits) if lengths is None else lengths
        told: Tensor | None = None
        indices: list[Tensor] = []
        for stage in range(self.level.codebooks):
            index = self.nearest(residual, stage, weights[..., None] * costs.bits(stage, told))
            chosen = self.codebooks[stage][index]
            if update:
                self._update(stage, residual, index)
            residual = residual - chosen
            indices.append(index)
            if stage + 1 < self.level.codebooks:
                add = costs.told(stage, index)
                told = add if told is None else told + add
        return torch.stack(indices, 1).view(n, h, w, -1).permute(0, 3, 1, 2), residual.view(n, h, w, d)

    def _weights(self, given: Tensor | None, n: int, h: int, w: int) -> Tensor:
        """The rate weight of every vector, [M]."""
        weights = self.rate_weight if given is None else given
        return weights.view(*weights.shape, *[1] * (3 - weights.dim())).expand(n, h, w).reshape(-1)

    def _choose_beam(
        self, z: Tensor, rate_weights: Tensor | None, lengths: CodeLengths | None, beam: int
    ) -> tuple[Tensor, Tensor]:
        """As `choose`, with tensors [B, M, ...] of the B best partial choices at every position."""
        n, h, w, d = z.shape
        m, k = n * h * w, self.level.codes
        weights = self._weights(rate_weights, n, h, w)
        costs = OrderZero(self.bits) if lengths is None else lengths
        residual = z.reshape(1, m, d)
        spent = z.new_zeros(1, m)  # lambda * bits so far
        chosen = torch.zeros(1, m, 0, dtype=torch.int64, device=z.device)
        told: Tensor | None = None
        for stage in range(self.level.codebooks):
            codes = self.codebooks[stage]
            bits = weights[:, None] * costs.bits(stage, told)
            left = torch.addmm(codes.square().sum(1), residual.view(-1, d), codes.t(), alpha=-2.0).view(-1, m, k)
            total = left.add_(bits).add_((spent + residual.square().sum(-1))[..., None])
            parent, index = _smallest(total, min(beam, len(total) * k))  # [B', M]
            rows = torch.arange(m, device=z.device)
            spent = spent[parent, rows] + bits.expand(len(total), m, k)[parent, rows, index]
            residual = residual[parent, rows] - codes[index]
            chosen = torch.cat([chosen[parent, rows], index[..., None]], -1)
            if stage + 1 < self.level.codebooks:
                add = costs.told(stage, index)
                told = add if told is None else told.expand(len(residual), *told.shape[1:])[parent, rows] + add
        best = (residual.square().sum(-1) + spent).argmin(0)
        rows = torch.arange(m, device=z.device)
        maps = chosen[best, rows].view(n, h, w, -1).permute(0, 3, 1, 2)
        return maps, residual[best, rows].view(n, h, w, d)

    def nearest(self, vectors: Tensor, stage: int, price: Tensor | None = None) -> Tensor:
        """Index of the best code of a stage for every vector. vectors: float [M, D] -> int64 [M]. price: float [M, K]
        or [K], added to the squared distances; by default the order-0 bits times `rate_weight`."""
        codes = self.codebooks[stage]
        price = self.rate_weight * self.bits[stage] if price is None else price
        # |r - c|^2 without |r|^2, which is the same for all codes
        return torch.addmm(codes.square().sum(1) + price, vectors, codes.t(), alpha=-2.0).argmin(1)

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


def _smallest(costs: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Places (b, k) of the smallest values at every m, [B, M, K] -> int64 [number, M] each; overwrites them. For few of
    them this is much faster on a CPU than `topk`, or than `argmin` over all: `amin` is quick, places are not."""
    rows = torch.arange(costs.shape[1], device=costs.device)
    parents, codes = [], []
    for _ in range(number):
        parent = costs.amin(-1).argmin(0)
        code = costs[parent, rows].argmin(-1)
        costs[parent, rows, code] = math.inf
        parents.append(parent)
        codes.append(code)
    return torch.stack(parents), torch.stack(codes)
