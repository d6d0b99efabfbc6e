# SPDX-License-Identifier: Apache-2.0
"""Residual vector quantisation with codebooks learned by exponential moving averages.

Stages that end a position where nothing more is worth its bits, and product stages, see `vqcodec.config.LevelConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqcodec.config import LevelConfig
from vqcodec.nets import parallel
from vqcodec.nets.choice import Choice, Codebooks, CodeLengths, OrderZero, choose

DECAY = 0.99  # of the codebook's moving averages (van den Oord et al. 2017, appendix A.1)
EPSILON = 1e-5  # Laplace smoothing of the counts, as there
DEAD = 0.02  # a code whose average count falls below this many vectors per batch is restarted
MAX_EXTRA_BITS = 3.0  # code lengths are clamped to log2(K) + this, so that a restarted code keeps a chance


class Quantized(NamedTuple):
    """quantized: float [N, H, W, D], gradient straight through to the input. indices: int64 [N, maps, H, W].
    commitment: float [N], mean square of z - sg(quantized) (the beta is the caller's)."""

    quantized: Tensor
    indices: Tensor
    commitment: Tensor


class Dropout(NamedTuple):
    """Images of which a level's quantiser does not do its work in training (quantiser dropout, Zeghidour et al. 2021,
    section III.C), bool [N], of all levels [levels, N]. silent: they get nothing of the level, which may stop. passed:
    their latents reach the decoder as they are; codes are chosen none the less."""

    silent: Tensor
    passed: Tensor


class ResidualQuantizer(nn.Module):
    """S codebooks of K codewords, stage s quantises what stages 0..s-1 left (one stage: plain VQ); then product stages.

    A vector r becomes the code k that minimises |r - c_k|^2 + rate_weight * bits_k: entropy-constrained vector
    quantisation (Chou, Lookabaugh, Gray 1989) with the order-0 code lengths of the training data; with
    rate_weight = 0 it is the nearest code. |x|^2 is |R x|^2 with `metric` R: the identity, or what an error of a latent
    does to the image. Code 0 of every stage but the first is fixed to zero: "nothing to add".
    Where the level may stop, that of the first is too, and code 0 ends the position: the cheapest ending is taken.

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
    metric: Tensor

    def __init__(self, level: LevelConfig) -> None:
        super().__init__()
        s, k, d = level.codebooks, level.codes, level.dim
        self.level = level
        self.enabled = True  # False: the input passes unquantised (warm-up before the k-means init)
        self.beam = 1  # partial choices that `forward` keeps where codes are chosen a second time
        self._register("", (s,), k, d)
        if level.products:
            self._register("product_", (level.products, level.groups), level.group_codes, d // level.groups)
        self.register_buffer("rate_weight", torch.zeros(()))
        self.register_buffer("metric", torch.zeros(d, d).fill_diagonal_(1))
        with torch.no_grad():
            self._pin_zero_codes()

    def _register(self, prefix: str, stages: tuple[int, ...], codes: int, dim: int) -> None:
        self.register_buffer(f"{prefix}codebooks", torch.empty(*stages, codes, dim).normal_(std=0.1))
        self.register_buffer(f"{prefix}counts", torch.ones(*stages, codes))
        self.register_buffer(f"{prefix}sums", self.get_buffer(f"{prefix}codebooks").clone())
        self.register_buffer(f"{prefix}bits", torch.full((*stages, codes), math.log2(codes)))

    def tables(self) -> list[Tensor]:
        """Order-0 code lengths of every stage, float [K] or [G, K]."""
        return [*self.bits, *(self.get_buffer("product_bits") if self.level.products else ())]

    def prepared(self) -> Codebooks:
        """Return the codewords as the search takes them."""
        products = self.get_buffer("product_codebooks") if self.level.products else None
        return Codebooks(self.level, self.codebooks, products, self.metric)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Weights without a metric have the identity."""
        state_dict.setdefault(f"{prefix}metric", torch.eye(self.level.dim))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def forward(
        self,
        z: Tensor,
        lmbdas: Tensor | None = None,
        refine: Callable[[Tensor], CodeLengths] | None = None,
        dropout: Dropout | None = None,
        refined: int | None = None,
    ) -> Quantized:
        """Choose codes, update the codebooks in training, and pass gradients straight through.

        Args:
            z: float [N, H, W, D].
            lmbdas: weights of a bit, float [N]; None: `rate_weight`.
            refine: gives the code lengths in the context of maps, int64 [n, maps, H, W]: codes are then chosen a second
                time, by them.
            dropout: of this level.
            refined: how many of the first images `refine` is asked for (None: all).

        Raises: ValueError on another shape.
        """
        if z.dim() != 4 or z.shape[-1] != self.level.dim:
            raise ValueError(f"expected [N, H, W, {self.level.dim}], got {list(z.shape)}")
        n, h, w, _ = z.shape
        if not self.enabled:
            empty = torch.zeros(n, self.level.maps, h, w, dtype=torch.int64, device=z.device)
            return Quantized(z, empty, z.new_zeros(n))
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            latents = z.detach().float()
            choice = self._chosen(latents, lmbdas, None)
            if refine is not None:
                some = slice(n if refined is None else refined)
                lengths = refine(self._maps(choice, latents)[some])
                again = self._chosen(latents[some], None if lmbdas is None else lmbdas[some], lengths, self.beam)
                choice = Choice(*(torch.cat([b, a[len(b) :]]) for a, b in zip(choice, again, strict=True)))
            maps = self._maps(choice, latents)
            if dropout is not None:
                maps = maps * ~dropout.silent[:, None, None, None]
            quantized = self.lookup(maps)
            if self.training:
                self._follow(latents.flatten(0, 2), choice)
        errors = z.float() - quantized
        if self.level.stop:
            commitment = (errors @ self.metric.t()).square().sum(3).mean((1, 2)) / (3 * self.level.stride**2)
        else:
            commitment = errors.square().mean((1, 2, 3))
        straight_through = z + (quantized.to(z.dtype) - z).detach()
        if dropout is not None:
            commitment = commitment * ~dropout.silent
            silent, passed = (images[:, None, None, None] for images in dropout)
            straight_through = torch.where(silent, quantized.to(z.dtype), straight_through)
            straight_through = torch.where(passed, z, straight_through)
        return Quantized(straight_through, maps, commitment)

    @torch.no_grad()
    def choose(
        self,
        z: Tensor,
        lmbdas: Tensor | None = None,
        lengths: CodeLengths | None = None,
        *,
        beam: int = 1,
    ) -> Tensor:
        """Choose codes, and change nothing.

        Args:
            z: float [N, H, W, D].
            lmbdas: weights of a bit, float [N] or [N, H, W]; None: `rate_weight`.
            lengths: code lengths; None: those of order 0.
            beam: see `nets.choice.choose`.

        Returns: int64 [N, maps, H, W].
        """
        return self._maps(self._chosen(z, lmbdas, lengths, beam), z)

    def _chosen(
        self,
        z: Tensor,
        lmbdas: Tensor | None,
        lengths: CodeLengths | None,
        beam: int = 1,
    ) -> Choice:
        costs = OrderZero(self.tables()) if lengths is None else lengths
        weights = self.rate_weight if lmbdas is None else lmbdas
        weights = weights.view(*weights.shape, *[1] * (3 - weights.dim())).expand(z.shape[:3])
        return choose(self.prepared(), z.reshape(-1, z.shape[-1]), weights.reshape(-1), costs, beam)

    @staticmethod
    def _maps(choice: Choice, z: Tensor) -> Tensor:
        return choice.indices.view(*z.shape[:3], -1).permute(0, 3, 1, 2)

    def _follow(self, vectors: Tensor, choice: Choice) -> None:
        """Let the codebooks follow what was chosen, stage by stage."""
        residual = vectors
        for stage in range(self.level.stages):
            live = choice.stages >= stage if self.level.stop else choice.stages >= 0
            index, here = choice.indices[live][:, self.level.stage_maps(stage)], residual[live]
            pool = here if len(here) else residual
            pool = pool[torch.arange(len(vectors), device=pool.device) % len(pool)]  # of one length on all ranks
            if stage < self.level.codebooks:
                added = self.codebooks[stage][index[:, 0]]
                self._update("", (stage,), here, index[:, 0], pool)
            else:
                product = stage - self.level.codebooks
                added = self._product(product, index)
                parts = zip(here.chunk(self.level.groups, 1), pool.chunk(self.level.groups, 1), strict=True)
                for group, (part, of_pool) in enumerate(parts):
                    self._update("product_", (product, group), part, index[:, group], of_pool)
            residual = residual.index_put((live.nonzero()[:, 0],), here - added)
        self._update_bits()

    def _product(self, product: int, index: Tensor) -> Tensor:
        """Codewords of a product stage: index int64 [..., G] -> float [..., D]."""
        codes = self.get_buffer("product_codebooks")[product]
        return codes[torch.arange(self.level.groups, device=index.device), index].flatten(-2)

    def lookup(self, indices: Tensor) -> Tensor:
        """Sum of the chosen codewords. indices: int [N, maps, H, W] in 0..K-1 -> float [N, H, W, D]."""
        level, maps = self.level, indices.long()
        total = self.codebooks[0][maps[:, 0]]
        for s in range(1, level.codebooks):
            total = total + self.codebooks[s][maps[:, s]]
        for p in range(level.products):
            total = total + self._product(p, maps[:, level.stage_maps(level.codebooks + p)].permute(0, 2, 3, 1))
        return total  # stages that a position does not use have code 0, which is zero

    @torch.no_grad()
    def initialize(self, vectors: Tensor, iterations: int = 10) -> None:
        """Start the codebooks by k-means of the residuals, stage by stage.

        Args:
            vectors: encoder outputs, float [M, D]; all ranks together must have at least K of them.
            iterations: of k-means for each stage.
        """
        residual = vectors.float().clone()
        for stage in range(self.level.codebooks):
            self._kmeans("", (stage,), residual, iterations)
            residual = residual - self.codebooks[stage][torch.cdist(residual, self.codebooks[stage]).argmin(1)]
        for product in range(self.level.products):
            for group, part in enumerate(residual.chunk(self.level.groups, 1)):  # views: what is left, in place
                self._kmeans("product_", (product, group), part, iterations)
                codes = self.get_buffer("product_codebooks")[product, group]
                part -= codes[torch.cdist(part, codes).argmin(1)]
        self._update_bits()

    def _kmeans(self, prefix: str, stage: tuple[int, ...], vectors: Tensor, iterations: int) -> None:
        """One codebook. Raises ValueError if there are too few vectors."""
        codebooks = self.get_buffer(f"{prefix}codebooks")
        k, size = codebooks.shape[-2], len(vectors) * parallel.world()
        if size < k:
            raise ValueError(f"k-means needs at least {k} vectors, got {size}")
        codes = parallel.drawn_rows(vectors, k, replace=False)
        for _ in range(iterations):
            count, total = _totals(vectors, torch.cdist(vectors, codes).argmin(1), k)
            codes = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], codes)
        codebooks[stage] = codes
        self._pin_zero_codes()
        count, _ = _totals(vectors, torch.cdist(vectors, codebooks[stage]).argmin(1), k)
        self.get_buffer(f"{prefix}counts")[stage] = count * (4096 / size) + DEAD
        self.get_buffer(f"{prefix}sums")[stage] = codebooks[stage] * self.get_buffer(f"{prefix}counts")[stage][:, None]

    def _update(self, prefix: str, stage: tuple[int, ...], residual: Tensor, index: Tensor, pool: Tensor) -> None:
        """Equations 6 to 8 for one batch. residual: float [M, D], index: int64 [M]. pool: what dead codes restart from,
        float [M', D], M' the same on all ranks."""
        counts, sums = (self.get_buffer(f"{prefix}{name}")[stage] for name in ("counts", "sums"))
        k = len(counts)
        count, total = _totals(residual, index, k)
        counts.mul_(DECAY).add_(count, alpha=1 - DECAY)
        sums.mul_(DECAY).add_(total, alpha=1 - DECAY)
        size = counts.sum()
        smoothed = (counts + EPSILON) / (size + k * EPSILON) * size
        codebook = self.get_buffer(f"{prefix}codebooks")[stage]
        codebook.copy_(sums / smoothed[:, None])
        dead = counts < DEAD
        if prefix or stage[0] > 0 or self.level.stop:
            dead[0] = False
        self._restart(dead, codebook, counts, sums, pool)
        self._pin_zero_codes()

    @staticmethod
    def _restart(dead: Tensor, codebook: Tensor, counts: Tensor, sums: Tensor, pool: Tensor) -> None:
        """Move unused codes onto live residuals; count and sum go along, or the next average would undo it."""
        number = int(dead.sum())
        if number:
            fresh = parallel.drawn_rows(pool, number)
            live = counts.mean().clamp(min=1.0)
            codebook[dead], counts[dead], sums[dead] = fresh, live, fresh * live

    def _pin_zero_codes(self) -> None:
        first = 0 if self.level.stop else 1
        self.codebooks[first:, 0] = 0.0
        self.sums[first:, 0] = 0.0
        if self.level.products:
            self.get_buffer("product_codebooks")[:, :, 0] = 0.0
            self.get_buffer("product_sums")[:, :, 0] = 0.0

    def _update_bits(self) -> None:
        for prefix in ("", "product_") if self.level.products else ("",):
            counts = self.get_buffer(f"{prefix}counts")
            probabilities = counts / counts.sum(-1, keepdim=True)
            limit = math.log2(counts.shape[-1]) + MAX_EXTRA_BITS
            self.get_buffer(f"{prefix}bits").copy_((-probabilities.clamp(min=1e-9).log2()).clamp(max=limit))


def _totals(vectors: Tensor, index: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """How many vectors of the joint batch chose each code, [K], and their sums, [K, D]."""
    ones = vectors.new_ones(len(vectors), 1)
    both = vectors.new_zeros(codes, vectors.shape[1] + 1)
    both = parallel.total(both.index_add_(0, index, torch.cat([ones, vectors], 1)))
    return both[:, 0], both[:, 1:]
