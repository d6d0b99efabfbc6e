# SPDX-License-Identifier: Apache-2.0
"""One engine for every order: step by step, where indices are drawn as they become known, and over whole maps.

Both use the same layers on the same rows (see `rows`). Step by step, all layers of a step come first and its indices
after them; over whole maps, where all indices are known, all steps of a layer come first and the next layer after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vqcodec.exact import ops, orders
from vqcodec.exact.attention import Memory
from vqcodec.exact.condition import Condition
from vqcodec.exact.network import IntegerPrior
from vqcodec.exact.rows import Part, Rows

CHUNK = 1024  # rows of a layer at once, so that they stay in a processor's cache
CHUNK_ELSEWHERE = 1 << 16


@dataclass(frozen=True, eq=False)
class Batch:
    """The indices that are coded together, those of a stage at the live positions of a step.

    Args:
        tiles, positions: int64 [n]; a position is y * W + x.
        groups: indices of every position. The order of the stream is position by position (row by row), then tile by
            tile, then group by group.
    """

    step: int
    stage: int
    groups: int
    tiles: Tensor
    positions: Tensor


# Gives the indices of a batch, int64 [n * groups], in the order of the stream. A decoder reads them, a sampler draws
# them. Frequencies: float32 [n * groups, K].
Draw = Callable[[Tensor, Batch], Tensor]


def run(prior: IntegerPrior, condition: Condition, draw: Draw, valid: Tensor | None = None) -> Tensor:
    """Produce all maps of all tiles.

    Args:
        prior: of the level.
        condition: from `IntegerPrior.condition`.
        draw: called for every step and stage that has live positions, with exactly the frequencies that `known` gives.
        valid: bool [N, H, W], False outside the image; None: all inside.

    Returns: int64 [N, maps, H, W], 0 outside the image and where a position has stopped.
    """
    rows = _rows(prior, condition, valid)
    trunk = Trunk(prior, condition, rows)
    indices = torch.zeros(len(rows), prior.level.maps, dtype=torch.int64, device=prior.device)
    for part in rows.steps:
        for layer in range(prior.config.layers):
            trunk.advance(layer, part)
            trunk.attend(layer, part)
        stack = OutputStack(prior, rows, part, trunk.output(part.start, part.stop))
        while not stack.done:
            chosen = draw(stack.frequencies(), stack.batch).view(-1, stack.batch.groups)
            indices[stack.rows, prior.level.stage_maps(stack.batch.stage)] = chosen
            stack.tell(chosen)
        trunk.embed(part.start, indices[part.start : part.stop])
        for layer in range(prior.config.layers):
            trunk.remember(layer, part)
    return rows.scattered(indices)


def known(
    prior: IntegerPrior, indices: Tensor, condition: Condition, valid: Tensor | None = None
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """List what `run` draws and with which frequencies, where the maps are known: what an encoder codes.

    Args:
        prior: of the level.
        indices: int64 [N, maps, H, W].
        condition: from `IntegerPrior.condition`.
        valid: as of `run`.

    Yields: in the order of the stream, batches with their indices, int64 [n * groups], and frequencies, float32
    [n * groups, K].
    """
    rows = _rows(prior, condition, valid)
    chosen = rows.gathered(indices)
    outputs = _whole(prior, condition, rows, chosen)
    for part in rows.steps:
        stack = OutputStack(prior, rows, part, outputs[part.start : part.stop])
        while not stack.done:
            symbols = chosen[stack.rows, prior.level.stage_maps(stack.batch.stage)]
            yield stack.batch, symbols.flatten(), stack.frequencies()
            stack.tell(symbols)


def outputs(prior: IntegerPrior, indices: Tensor, condition: Condition, valid: Tensor | None = None) -> list[Tensor]:
    """Compute what enters the output stack at every position of known maps.

    Args:
        prior: the integer prior of the level.
        indices: int64 [N, maps, H, W].
        condition: of the same tiles.
        valid: bool [N, H, W], False outside the image; None where all is inside.

    Returns: float32 [n, O] for each tile, at the positions inside the image, row by row.
    """
    rows = _rows(prior, condition, valid)
    entered = _whole(prior, condition, rows, rows.gathered(indices))
    order = torch.argsort(rows.tiles * len(rows.sequence) + rows.positions)
    counts = torch.bincount(rows.tiles, minlength=rows.number).tolist()
    return list(entered[order].split(counts))


def _rows(prior: IntegerPrior, condition: Condition, valid: Tensor | None) -> Rows:
    n, height, width = condition.shape
    return Rows(orders.order(prior.config.order, height, width), n, valid, prior.device)


def _whole(prior: IntegerPrior, condition: Condition, rows: Rows, indices: Tensor) -> Tensor:
    """What enters the output stack at all rows, [M, O]. indices: int64 [M, maps]."""
    trunk = Trunk(prior, condition, rows)
    trunk.embed(0, indices)
    for layer in range(prior.config.layers):
        for part in rows.maps:
            trunk.advance(layer, part)
            trunk.remember(layer, part)
            trunk.attend(layer, part)
    return trunk.output(0, len(rows))


class Trunk:
    """The layers over a batch of tiles, part after part: inputs of every layer, [rows + 1, C], the last row zero."""

    def __init__(self, prior: IntegerPrior, condition: Condition, rows: Rows) -> None:
        self._prior, self._rows = prior, rows
        number, c = len(rows), prior.config.channels
        self._condition = condition.of_rows(rows)
        if prior.step is not None:
            steps = rows.order.step.to(rows.device)[rows.positions]
            self._condition = ops.clamped(self._condition.add_(prior.step.index_select(0, steps)))
        self._inputs = [prior.embed.new_empty(number + 1, c) for _ in range(prior.config.layers + 1)]
        for inputs in self._inputs:
            inputs[-1] = 0
        self._memories = {layer: Memory(attention, rows) for layer, attention in prior.attentions.items()}
        self._chunk = CHUNK if prior.device.type == "cpu" else CHUNK_ELSEWHERE
        most = min(self._chunk, number)
        taps = max(len(reach) for reach in prior.kind.reaches)
        self._gathered = prior.embed.new_empty(most * taps, c)  # written again and again: new memory is slow
        self._product = prior.embed.new_empty(most, 2 * c)

    def embed(self, start: int, indices: Tensor) -> None:
        """Set the first layer's input at consecutive rows.

        Args:
            start: the first of these rows.
            indices: int64 [n, maps].
        """
        self._inputs[0][start : start + len(indices)] = self._prior.embedded(indices)

    def advance(self, layer: int, part: Part) -> None:
        """Evaluate a gated residual layer at the rows of a part; `attend` belongs after it.

        Args:
            layer: number of the layer, from 0.
            part: rows that are evaluated together.
        """
        product = self._prior.products[layer]
        inputs, outputs = self._inputs[layer], self._inputs[layer + 1]
        taps = len(part.live)
        neighbours = product.taps(part.reach, part.live)
        itself = product.taps(part.reach, (len(self._prior.kind.reaches[part.reach]),)) if layer else None
        for start in range(part.start, part.stop, self._chunk):
            stop = min(start + self._chunk, part.stop)
            n = stop - start
            x = torch.addmm(
                product.condition.bias, self._condition[start:stop], product.condition.weight, out=self._product[:n]
            )
            if taps:
                index = part.neighbours[(start - part.start) * taps : (stop - part.start) * taps]
                torch.index_select(inputs, 0, index, out=self._gathered[: n * taps])
                x.addmm_(self._gathered[: n * taps].view(n, -1), neighbours)
            if itself is not None:
                x.addmm_(inputs[start:stop], itself)
            gated = ops.gate(x.floor_())
            weight, bias = self._prior.projections[layer]
            update = ops.clamped(torch.addmm(bias, gated, weight, out=outputs[start:stop]).floor_())
            if layer:
                ops.clamped(update.add_(inputs[start:stop]))

        if layer in self._memories:
            self._memories[layer].hold(outputs[part.start : part.stop])

    def remember(self, layer: int, part: Part) -> None:
        """Keep what later rows look at, once the indices of the part that was advanced last are known.

        Args:
            layer: number of the layer, from 0.
            part: the part that was advanced last.
        """
        if layer in self._memories:
            self._memories[layer].remember(part, self._inputs[0][part.start : part.stop])

    def attend(self, layer: int, part: Part) -> None:
        """Let the rows of the part that was advanced last look at earlier steps, if an attention follows the layer.

        Args:
            layer: number of the layer, from 0.
            part: the part that was advanced last.
        """
        if layer in self._memories:
            self._inputs[layer + 1][part.start : part.stop] = self._memories[layer].attend(part)

    def output(self, start: int, stop: int) -> Tensor:
        """Compute what enters the output stack at consecutive rows.

        Args:
            start: the first row.
            stop: the row behind the last one.

        Returns: float32 integers [stop - start, O].
        """
        return self._prior.entered(self._inputs[-1][start:stop])


class OutputStack:
    """The stages of one part: at each, frequencies of the live rows, then their indices.

    batch: what is asked for. rows: int64 [n], the numbers of the live rows among all.
    """

    def __init__(self, prior: IntegerPrior, rows: Rows, part: Part, h: Tensor) -> None:
        """h: float32 [rows of the part, O]."""
        self._prior, self._h = prior, h
        self._earlier: Tensor | None = None
        self.rows = torch.arange(part.start, part.stop, device=prior.device)
        tiles, positions = rows.tiles[part.start : part.stop], rows.positions[part.start : part.stop]
        self.batch = Batch(part.step, 0, prior.groups(0), tiles, positions)

    @property
    def done(self) -> bool:
        """Whether no stage or no live row is left."""
        return self.batch.stage == self._prior.level.stages or not len(self.rows)

    def frequencies(self) -> Tensor:
        """Compute frequencies, float32 [n * groups, K]."""
        return self._prior.frequencies(self.batch.stage, self._h, self._earlier)

    def tell(self, indices: Tensor) -> None:
        """Go on to the next stage. indices: int64 [n, groups], of the present one."""
        batch, prior = self.batch, self._prior
        stage = batch.stage + 1
        tiles, positions = batch.tiles, batch.positions
        if stage < prior.level.stages:
            if prior.level.stop:
                live = indices.any(1).nonzero()[:, 0]
                if len(live) < len(indices):
                    tensors = (self.rows, tiles, positions, indices, self._h)
                    self.rows, tiles, positions, indices, self._h = (x.index_select(0, live) for x in tensors)
                    self._earlier = None if self._earlier is None else self._earlier.index_select(0, live)
            added = prior.handed_on(batch.stage, indices)
            self._earlier = added if self._earlier is None else self._earlier.add_(added)
        groups = prior.groups(min(stage, prior.level.stages - 1))
        self.batch = Batch(batch.step, stage, groups, tiles, positions)
