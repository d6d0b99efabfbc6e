# SPDX-License-Identifier: Apache-2.0
"""A trained model carried over to one with more product stages or a wider range of lambdas, to be trained further."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from vqcodec.config import ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.blocks import Gains
from vqcodec.prior.network import LevelPrior
from vqcodec.training.prior import Priors

SHRUNK = 0.6  # what is left after a product stage of 64 codes on 8 dimensions, in units of what was there before
SILENT = 4.0  # nats by which code 0 of a new product stage begins more likely than in the stage before
FINER = 4  # the most by which points may become denser, so that those before are among them
FITS = 0.02  # of the distance of two points, how far those before may be from one


def widened(config: ModelConfig, products: int | None, lmbdas: tuple[float, float] | None) -> ModelConfig:
    """Make the configuration of the wider model.

    Gains and embeddings of the trade-off get more points where that puts the points before among them: a model whose
    range grows by a whole number of their distances, or of parts of them, is the same inside the range before.

    Args:
        config: of the model that was trained.
        products: product stages of its finest level; None: as many as it has.
        lmbdas: its range; None: the same.

    Raises: ValueError where stages would be taken away, or the level has none to go on from.
    """
    auto = config.autoencoder
    *coarser, finest = auto.levels
    if products is not None and products != finest.products:
        if not 0 < finest.products < products:
            raise ValueError(f"a level of {finest.products} product stages cannot go on with {products}")
        finest = dataclasses.replace(finest, products=products)
    wider = lmbdas or config.lmbdas
    tradeoffs = _Tradeoffs(config.lmbdas, wider)
    auto = dataclasses.replace(auto, levels=(*coarser, finest), gains=tradeoffs.number(auto.gains, 1))
    priors = tuple(
        dataclasses.replace(prior, tradeoffs=tradeoffs.number(prior.tradeoffs, 0)) for prior in config.priors
    )
    return dataclasses.replace(config, autoencoder=auto, priors=priors, lmbdas=wider)


@torch.no_grad()
def carried(before: ModelConfig, model: Autoencoder, priors: Priors, wider: ModelConfig) -> tuple[Autoencoder, Priors]:
    """Make the wider model from the trained one. New stages begin as smaller copies of the last, which say nothing to
    the priors and are mostly silent; what depends on the trade-off is read off at the same lambda.

    Args:
        before: configuration of the trained model.
        model: its autoencoder.
        priors: its priors.
        wider: from `widened`.
    """
    new_model, new_priors = Autoencoder(wider.autoencoder), Priors(wider)
    tradeoffs = _Tradeoffs(before.lmbdas, wider.lmbdas)
    new_model.load_state_dict(_with_products(model.state_dict(), new_model.state_dict()))
    for old_gains, new_gains in zip(model.gains.values(), new_model.gains.values(), strict=True):
        assert isinstance(old_gains, Gains)
        assert isinstance(new_gains, Gains)
        new_gains.logs.copy_(old_gains.at(tradeoffs.at(torch.linspace(0, 1, len(new_gains.logs)))))
    if before.lmbdas != wider.lmbdas:
        for quantizer in new_model.level_quantizers():
            if quantizer.rate_weight:
                quantizer.rate_weight.fill_(math.sqrt(math.prod(wider.lmbdas)))
    for old, new in zip(priors.levels(), new_priors.levels(), strict=True):
        _carry_prior(old, new, tradeoffs)
    return new_model, new_priors


class _Tradeoffs:
    """Where trade-offs of the wider range of lambdas lie in the range before."""

    def __init__(self, before: tuple[float, float], wider: tuple[float, float]) -> None:
        self.before, self.wider = before, wider

    def number(self, count: int, ends: int) -> int:
        """Count the points that the wider range needs, so that those before are among them; as many as before where
        up to FINER times as dense ones do not fit. ends: 1 for points from end to end, 0 for rows that fill a range."""
        (low, high), (first, last) = self.before, self.wider
        intervals = count - ends
        if self.before == self.wider or not low or intervals < 1:
            return count
        for finer in range(1, FINER + 1):
            distance = math.log(high / low) / (intervals * finer)
            more = [math.log(low / first) / distance, math.log(last / high) / distance]
            if all(abs(x - round(x)) < FITS and x > -FITS for x in more):
                return intervals * finer + sum(round(x) for x in more) + ends
        return count

    def at(self, tradeoffs: Tensor) -> Tensor:
        """Trade-offs, float [n] in 0..1, to those in the range before, cut to it."""
        (low, high), (first, last) = self.before, self.wider
        if self.before == self.wider or not low:
            return tradeoffs
        logs = math.log(first) + tradeoffs * math.log(last / first)
        return ((logs - math.log(low)) / math.log(high / low)).clamp(0, 1)

    def rows(self, table: Tensor, number: int) -> Tensor:
        """A table of one vector for every interval of equal length, [intervals, C], read off anew, [number, C]."""
        at = self.at((torch.arange(number) + 0.5) / number)
        return table[(at * len(table)).long().clamp(max=len(table) - 1)]


def _with_products(state: Mapping[str, Tensor], shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give quantisers their new product stages."""
    grown = {}
    for name, value in state.items():
        more = shapes[name].shape[0] - value.shape[0] if value.dim() else 0
        if more:  # of the product stages, along the first axis
            factor = SHRUNK if name.endswith(("product_codebooks", "product_sums")) else 1.0
            value = torch.cat([value, *(value[-1:] * factor**i for i in range(1, more + 1))])
        grown[name] = value
    return grown


def _carry_prior(old: LevelPrior, new: LevelPrior, tradeoffs: _Tradeoffs) -> None:
    """Copy what both priors have. Codes of new stages are numbered last, and their embeddings begin as zeros."""
    shapes = new.state_dict()
    state = {}
    for name, value in old.state_dict().items():
        if name == "rate":
            value = tradeoffs.rows(value, len(shapes[name]))
        elif name == "stage" and len(value) < len(shapes[name]):
            value = torch.cat([value, value[-1:].expand(len(shapes[name]) - len(value), -1)])
        elif value.shape != shapes[name].shape:  # `embed` and `told`
            value = torch.cat([value, value.new_zeros(len(shapes[name]) - len(value), *value.shape[1:])])
        state[name] = value
    level, last = new.level, f"heads.{old.level.stages - 1}"
    silence = torch.zeros(level.groups, level.group_codes)
    silence[:, 0] = SILENT
    for stage in range(old.level.stages, level.stages):
        state[f"heads.{stage}.weight"] = state[f"{last}.weight"]
        state[f"heads.{stage}.bias"] = state[f"{last}.bias"] + silence.flatten()
    new.load_state_dict(state)
