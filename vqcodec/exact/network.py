# SPDX-License-Identifier: Apache-2.0
"""The integer prior of one level: tensors, their proof of exactness, and the evaluation of whole maps.

Layout is [tiles, H, W, channels]. Index maps are int64; everything else is float32 holding integers (see `ops`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vqcodec.config import LevelConfig, PriorConfig
from vqcodec.errors import ModelError
from vqcodec.exact import ops
from vqcodec.exact.ops import Linear
from vqcodec.exact.waveorder import wave_of
from vqcodec.nets.quantizer import CodeLengths

# The causal neighbourhood, as (dy, dx), in the order of the rows of a layer's weight: left, above right, above, above
# left, and (but in the first layer) the position itself. Position (y, x) is in wave x + 2y: these are 1, 1, 2, 3 and 0
# waves back.
TAPS = ((0, -1), (-1, 1), (-1, 0), (-1, -1), (0, 0))
ATTENTION_SCORES = 1 << 18  # computed at once when whole maps are evaluated
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


def shifted(x: Tensor, taps: Sequence[tuple[int, int]]) -> Tensor:
    """Neighbours of every position side by side, zero outside: [N, H, W, C] -> [N, H, W, len(taps) * C]."""
    h, w = x.shape[1:3]
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w] for dy, dx in taps], -1)


def upsampled(maps: Tensor, ratio: int, codes: int) -> Tensor:
    """Nearest upsampling that keeps the phase: [N, H, W] in 0..K-1 -> [N, rH, rW] in 0..r*r*K-1."""
    fine = maps.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    rows = torch.arange(fine.shape[1], device=maps.device) % ratio
    columns = torch.arange(fine.shape[2], device=maps.device) % ratio
    return fine + (rows[:, None] * ratio + columns) * codes


def _residual(x: Tensor, seen: Tensor, inner: Linear, outer: Linear) -> Tensor:
    """x + W2 relu(W1 seen), clamped."""
    update = ops.rectified(ops.rounded(seen, inner))
    return ops.clamped(ops.clamped(ops.rounded(update, outer)).add_(x))


class IntegerPrior:
    """Gated residual PixelCNN (van den Oord et al. 2016; Razavi et al. 2019) over the index maps of one level.

    Position after position, and at each position stage after stage, as in the RQ-Transformer (Lee et al. 2022): the
    masked convolutions see all codebooks' indices of the positions before, and the maps of the coarser levels; for
    stage s, the indices that stages 0..s-1 have at the position itself are then added ahead of the output stack.

    Making one from tensors checks names, shapes and the bound of every product; ModelError or ExactnessError otherwise.
    """

    def __init__(
        self,
        config: PriorConfig,
        level: LevelConfig,
        coarser: Sequence[LevelConfig],
        tensors: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.level, self.coarser = config, level, tuple(coarser)
        self.device = torch.device(device)
        self._tensors = tensors
        c, k, s = config.channels, level.codes, level.codebooks
        self.embed = self._get("embed", (s, k, c))
        self.stage = self._get("stage", (s, c))
        self.cond_own = self._get("cond_own", (s - 1, k, c)) if s > 1 else None
        self.cond_coarse = [
            self._get(f"cond_coarse.{i}", (other.codebooks, (other.stride // level.stride) ** 2 * other.codes, c))
            for i, other in enumerate(self.coarser)
        ]
        self.cond_blocks = [
            (self._linear(f"cond.{b}.inner", 9 * c, c), self._linear(f"cond.{b}.outer", c, c))
            for b in range(config.cond_blocks)
        ]
        self.convs: list[Tensor] = []
        self.conds: list[Linear] = []
        self.projections: list[Linear] = []
        for i in range(config.layers):
            taps = 4 if i == 0 else 5
            conv = self._gated(f"layer.{i}.conv", (taps + 1) * c, c)  # last rows: the condition
            self.convs.append(conv.weight[: taps * c])
            self.conds.append(Linear(conv.weight[taps * c :], conv.bias))
            self.projections.append(self._linear(f"layer.{i}.project", c, c, ops.SHIFT_PROJECT))
        self.attentions = {
            i: tuple(
                self._linear(f"attention.{i}.{n}", a, b)
                for n, a, b in (("query", c, c), ("key_value", 2 * c, 2 * c), ("out", c, c))
            )
            for i in range(config.layers)
            if config.attention_every and (i + 1) % config.attention_every == 0
        }
        self.out_blocks = [
            (self._linear(f"out.{b}.inner", c, c), self._linear(f"out.{b}.outer", c, c))
            for b in range(config.out_blocks)
        ]
        self.heads = [self._linear(f"head.{i}", c, k, ops.SHIFT_LOGIT) for i in range(s)]
        self.table = self._get("table", (256,), limit=ops.BOUND)
        self.exp_table = self._get("exp_table", (256,), limit=ops.BOUND)
        if self.table.min() < 1 or float(self.table.max()) * k >= ops.BOUND or self.exp_table.min() < 0:
            raise ModelError("the prior's frequency table does not fit its number of codes")
        del self._tensors

    def _get(self, name: str, shape: tuple[int, ...], limit: int = ops.ACT_MAX + 1) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype.is_floating_point:
            found = "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
            raise ModelError(f"prior tensor {name} should be integers of shape {shape}; it is {found}")
        if tensor.numel() and int(tensor.long().abs().max()) >= limit:
            raise ModelError(f"prior tensor {name} has values of {limit} or more")
        return tensor.to(self.device, torch.float32)

    def _linear(self, name: str, inputs: int, outputs: int, shift: int = ops.SHIFT) -> Linear:
        weight = self._get(f"{name}.weight", (inputs, outputs))
        bias = self._get(f"{name}.bias", (outputs,), limit=ops.BOUND)
        return ops.linear(weight, bias, shift)

    def _gated(self, name: str, inputs: int, channels: int) -> Linear:
        """The product before a gate: each half in its own units, half of the sigmoid's range added."""
        weight = self._get(f"{name}.weight", (inputs, 2 * channels))
        bias = self._get(f"{name}.bias", (2 * channels,), limit=ops.BOUND)
        bias[channels:] += ops.SIGMOID_HALF * 2**ops.SHIFT
        shift = torch.tensor([ops.SHIFT_TANH, ops.SHIFT], device=self.device).repeat_interleave(channels)
        return ops.linear(weight, bias, shift)

    # What follows is shared by whole maps and waves: it looks at one position at a time. x: [M, ...].

    def layer(self, i: int, neighbours: Tensor, cond: Tensor, h: Tensor | None) -> Tensor:
        """Gated residual layer i. neighbours [M, taps * C], cond [M, 2C] (from `condition`), h [M, C] -> [M, C]."""
        gated = ops.gate(torch.addmm(cond, neighbours, self.convs[i]).floor_())
        update = ops.clamped(ops.rounded(gated, self.projections[i]))
        return update if h is None else ops.clamped(update.add_(h))

    def attend(self, i: int, h: Tensor, key_value: Tensor, visible: Tensor) -> Tensor:
        """Attention after layer i. h [N, Q, C]; key_value [N, M, 2C]; visible bool [N or 1, 1, Q or 1, M] -> like h."""
        n, q, c = h.shape
        heads = self.config.heads
        query = ops.clamped(ops.rounded(h, self.attentions[i][0]))
        query = query.view(n, q, heads, -1).transpose(1, 2)
        key, value = key_value.view(n, -1, 2, heads, c // heads).permute(2, 0, 3, 1, 4)
        mean = ops.attend(query, key, value, visible, self.exp_table).transpose(1, 2).reshape(n, q, c)
        return ops.clamped(ops.clamped(ops.rounded(mean, self.attentions[i][2])).add_(h))

    def keys_and_values(self, i: int, h: Tensor, embedded: Tensor) -> Tensor:
        """h, embedded (own index of the position): [..., C] -> [..., 2C]."""
        return ops.clamped(ops.rounded(torch.cat([h, embedded], -1), self.attentions[i][1]))

    def own(self, indices: Tensor) -> Tensor:
        """What a position tells those after it. indices: int64 [..., S] -> [..., C]."""
        x = self.embed[0][indices[..., 0]]
        for stage in range(1, self.level.codebooks):
            x = x + self.embed[stage][indices[..., stage]]
        return ops.clamped(x)

    def told(self, stage: int, index: Tensor) -> Tensor:
        """What the index of a stage adds for all later ones of its position. index: int64 [...] -> [..., C]."""
        assert self.cond_own is not None
        return self.cond_own[stage][index]

    def logits(self, stage: int, h: Tensor, told: Tensor | None) -> Tensor:
        """Output stack. h [M, C], told [M, C] (sum over the stages before, None for the first) -> integers [M, K] in
        units of 2^-LOGIT_BITS nats."""
        if told is not None:
            h = ops.clamped((h + told).add_(self.stage[stage]))
        for inner, outer in self.out_blocks:
            h = _residual(h, h, inner, outer)
        return ops.rounded(h, self.heads[stage])

    # Whole maps.

    def condition(
        self, coarse: Sequence[Tensor], shape: tuple[int, int, int], valid: Tensor | None = None
    ) -> list[Tensor]:
        """What the coarser levels' maps add to every layer.

        coarse: int64 [N, S_i, H_i, W_i], one per coarser level; shape: (N, H, W); valid: bool [N, H, W], False outside
        the image (None: all inside). Returns [N, H, W, 2C] per layer, for `layer`: parts of a product, its shift and
        rounding half folded in (see `ops.Linear`).
        """
        n, h, w = shape
        x = self.stage[0].expand(n, h, w, -1)
        for table, maps, other in zip(self.cond_coarse, coarse, self.coarser, strict=True):
            ratio = other.stride // self.level.stride
            for j in range(other.codebooks):
                x = x + table[j][upsampled(maps[:, j], ratio, other.codes)]
        x = self._inside(x.clamp(-ops.ACT_MAX, ops.ACT_MAX), valid)
        for inner, outer in self.cond_blocks:
            x = self._inside(_residual(x, shifted(x, AROUND), inner, outer), valid)
        flat = x.reshape(-1, x.shape[-1])
        return [torch.addmm(cond.bias, flat, cond.weight).view(n, h, w, -1) for cond in self.conds]

    def map_frequencies(
        self, indices: Tensor, condition: Sequence[Tensor], valid: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Frequencies of every position of known maps, as the encoder needs them, stage by stage.

        indices: int64 [N, S, H, W]; condition: from `condition` -> float32 integers [N, H, W, K] for each stage. The
        frequencies at a position depend only on indices of earlier waves, and on the position's own of earlier stages;
        they equal those of `waves.run` bit for bit.
        """
        n, _, height, width = indices.shape
        h = self.trunk(indices, condition, valid)
        told: Tensor | None = None
        for stage in range(self.level.codebooks):
            yield ops.frequencies(self.logits(stage, h, told), self.table).view(n, height, width, -1)
            if stage + 1 < self.level.codebooks:
                add = self.told(stage, indices[:, stage].flatten())
                told = add if told is None else told + add

    def trunk(self, indices: Tensor, condition: Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
        """What is known of every position before its own indices: maps int64 [N, S, H, W] -> [N * H * W, C]."""
        n, _, height, width = indices.shape
        positions = n * height * width
        embedded = self._inside(self.own(indices.permute(0, 2, 3, 1)), valid)
        x, h = embedded, None
        visible: Tensor | None = None
        for i in range(self.config.layers):
            taps = TAPS[:4] if i == 0 else TAPS
            flat = self.layer(i, shifted(x, taps).view(positions, -1), condition[i].reshape(positions, -1), h)
            if i in self.attentions:
                if visible is None:
                    visible = self._visible(height, width, valid)
                state = flat.view(n, height * width, -1)
                key_value = self.keys_and_values(i, self._inside(state.view_as(embedded), valid), embedded).view(
                    n, height * width, -1
                )
                flat = self._attend_maps(i, state, key_value, visible).view(positions, -1)
            x = self._inside(flat.view_as(embedded), valid)
            h = x.reshape(positions, -1)
        assert h is not None
        return h

    def code_lengths(
        self, indices: Tensor, condition: Sequence[Tensor], valid: Tensor | None = None
    ) -> list[CodeLengths]:
        """Bits of every code at every valid position of each tile, if the maps around it are these; arguments as of
        `map_frequencies`."""
        tiles = self.trunk(indices, condition, valid).chunk(len(indices))
        if valid is not None:
            tiles = tuple(h[inside.flatten()] for h, inside in zip(tiles, valid, strict=True))
        return [_Lengths(self, h) for h in tiles]

    def _attend_maps(self, i: int, h: Tensor, key_value: Tensor, visible: Tensor) -> Tensor:
        """As `attend`, for whole maps, some tiles or a part of one at a time, so that the scores stay in the cache."""
        n, positions, _ = h.shape
        queries = max(1, min(positions, ATTENTION_SCORES // (self.config.heads * positions)))
        step = max(1, ATTENTION_SCORES // (self.config.heads * positions * queries))
        seen = visible.expand(n, -1, -1, -1)
        found = torch.empty_like(h)
        for first in range(0, n, step):
            own = slice(first, first + step)
            for start in range(0, positions, queries):
                part = slice(start, start + queries)
                found[own, part] = self.attend(i, h[own, part], key_value[own], seen[own, :, part])
        return found

    def _visible(self, height: int, width: int, valid: Tensor | None) -> Tensor:
        """bool [N or 1, 1, HW, HW]: True where the key's wave is before the query's and inside the image."""
        wave = wave_of(height, width).flatten().to(self.device)
        visible = (wave[None, :] < wave[:, None])[None, None]
        return visible if valid is None else visible & valid.flatten(1)[:, None, None, :]

    @staticmethod
    def _inside(x: Tensor, valid: Tensor | None) -> Tensor:
        return x if valid is None else x * valid[..., None]


class _Lengths:
    """`CodeLengths` of a prior, from the output of its trunk, [M, C]. Choosing by it is no part of the contract."""

    def __init__(self, prior: IntegerPrior, h: Tensor) -> None:
        self.prior, self.h = prior, h
        self.least = math.log2(float(prior.table[0]))  # no frequency is below 1

    def bits(self, stage: int, told: Tensor | None) -> Tensor:
        logits = self.prior.logits(stage, self.h, told)
        # the table's exponential, but for its rounding: in float this is faster than looking it up
        below = (logits - logits.amax(-1, keepdim=True)).mul_(1 / (2**ops.LOGIT_BITS * math.log(2)))
        below.clamp_(min=-self.least)
        return below.exp2().sum(-1, keepdim=True).log2_() - below

    def told(self, stage: int, index: Tensor) -> Tensor:
        return self.prior.told(stage, index)
