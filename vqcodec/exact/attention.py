# SPDX-License-Identifier: Apache-2.0
"""Causal attention after a layer: every position looks at those of earlier steps of its tile that lie in the image."""

from __future__ import annotations

import torch
from torch import Tensor

from vqcodec.exact import ops
from vqcodec.exact.rows import Part, Rows
from vqcodec.exact.tensors import Reader

SCORES = 1 << 18  # computed at once, so that they stay in the cache


class Attention:
    """The weights of one attention layer, with one zero key that is always visible."""

    def __init__(self, name: str, channels: int, heads: int, exponential: Tensor, reader: Reader) -> None:
        """exponential: float32 [256], the table that stands for exp."""
        self.heads, self.exponential = heads, exponential
        self.query = reader.linear(f"{name}.query", channels, channels)
        self.key_value = reader.linear(f"{name}.key_value", 2 * channels, 2 * channels)
        self.out = reader.linear(f"{name}.out", channels, channels)

    def attend(self, h: Tensor, key_value: Tensor, visible: Tensor) -> Tensor:
        """Let queries look at the keys that are visible to them.

        Args:
            h: rows that look, float32 integers [N, Q, C].
            key_value: keys and values side by side, float32 integers [N, M, 2C].
            visible: which keys each query sees, bool [N or 1, 1, Q or 1, M].

        Returns: h plus the update, float32 integers in -127..127, [N, Q, C].
        """
        n, q, c = h.shape
        query = ops.clamped(ops.rounded(h, self.query)).view(n, q, self.heads, -1).transpose(1, 2)
        key, value = key_value.view(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mean = ops.attend(query, key, value, visible, self.exponential).transpose(1, 2).reshape(n, q, c)
        return ops.clamped(ops.clamped(ops.rounded(mean, self.out)).add_(h))


class Memory:
    """Keys and values of a batch of tiles so far, [N, H * W, 2C] in the order of `Rows.sequence`."""

    def __init__(self, attention: Attention, rows: Rows) -> None:
        weight = attention.key_value.weight
        self._attention, self._rows = attention, rows
        self._keys = weight.new_zeros(rows.number, len(rows.sequence), weight.shape[1])
        self._steps = rows.order.step.to(rows.device)[rows.sequence]

    def hold(self, h: Tensor) -> None:
        """Take the rows of the next part, float32 [n, C], as they are ahead of the attention."""
        self._held = h.clone()

    def remember(self, part: Part, embedded: Tensor) -> None:
        """Keep the keys and values of the part that is held.

        Args:
            part: the part whose rows `hold` took.
            embedded: the part's indices as vectors, float32 [n, C].
        """
        tiles, slots = self._rows.tiles[part.start : part.stop], self._rows.slots[part.start : part.stop]
        both = torch.cat([self._held, embedded], -1)
        self._keys[tiles, slots] = ops.clamped(ops.rounded(both, self._attention.key_value))

    def attend(self, part: Part) -> Tensor:
        """Compute the rows of the part that is held, [n, C], after they have looked at what is kept of earlier
        steps."""
        tiles, slots = self._rows.tiles[part.start : part.stop], self._rows.slots[part.start : part.stop] - part.first
        dense = self._held.new_zeros(self._rows.number, part.last - part.first, self._held.shape[1])
        dense[tiles, slots] = self._held
        queries = self._steps[part.first : part.last]
        known = int((self._steps < queries[-1]).sum())  # positions of steps before the last one of the part
        visible = (self._steps[:known] < queries[:, None])[None, None]  # [1, 1, Q, M]
        if self._rows.inside is not None:
            visible = visible & self._rows.inside[:known].t()[:, None, None]
        return self._in_chunks(dense, self._keys[:, :known], visible)[tiles, slots]

    def _in_chunks(self, h: Tensor, key_value: Tensor, visible: Tensor) -> Tensor:
        """As `Attention.attend`, some tiles or a part of one at a time."""
        n, positions, _ = h.shape
        across = self._attention.heads * max(1, key_value.shape[1])
        queries = max(1, min(positions, SCORES // across))
        tiles = max(1, SCORES // (across * queries))
        seen = visible.expand(n, -1, -1, -1)
        result = torch.empty_like(h)
        for tile in range(0, n, tiles):
            part = slice(tile, tile + tiles)
            for start in range(0, positions, queries):
                some = slice(start, start + queries)
                result[part, some] = self._attention.attend(h[part, some], key_value[part], seen[part, :, some])
        return result
