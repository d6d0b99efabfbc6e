# SPDX-License-Identifier: Apache-2.0
"""A model that turns index maps into streams and pixels, and back: what a codec is without the choice of codes."""

from __future__ import annotations

from collections.abc import Sequence

from vqcodec.format import container
from vqcodec.images.types import Pixels
from vqcodec.model import pixels
from vqcodec.model.limits import DEFAULT_LIMITS, Deadline, Limits
from vqcodec.model.maps import IndexMaps
from vqcodec.model.model import Model
from vqcodec.stream import reader, writer


class IndexCodec(Model):
    """A model, ready to write and read index maps on one device.

    tradeoff: where the lmbda of an image lies in the model's range, 0 (the lowest: the best picture) to 255.
    """

    def from_indices(self, maps: IndexMaps, tradeoff: int = 0) -> Pixels:
        """Make pixels of index maps. Floating point: may differ by 1 between devices.

        Args:
            maps: of an image.
            tradeoff: 0 to 255.

        Returns: uint8 [height, width, 3].
        """
        return pixels.make(self, maps, tradeoff)

    def compress(self, maps: IndexMaps, tradeoff: int = 0) -> list[bytes]:
        """Write index maps into streams: see `stream.writer`.

        Args:
            maps: of an image.
            tradeoff: 0 to 255.
        """
        return writer.compress(self, maps, tradeoff)

    def decompress(
        self,
        streams: Sequence[bytes],
        width: int,
        height: int,
        group_tiles: int | None = None,
        tradeoff: int = 0,
        deadline: Deadline | None = None,
    ) -> IndexMaps:
        """Read index maps from streams: see `stream.reader.decompress`.

        Args:
            streams: group by group.
            width: of the image, in pixels.
            height: of the image, in pixels.
            group_tiles: tiles that share a stream.
            tradeoff: 0 to 255.
            deadline: for reading.
        """
        return reader.decompress(self, streams, width, height, group_tiles, tradeoff, deadline)

    def header(self, width: int, height: int, mode: str, tradeoff: int = 0) -> container.Header:
        """Make the header of the files that this codec writes.

        Args:
            width: in pixels.
            height: in pixels.
            mode: L, LA, RGB or RGBA.
            tradeoff: 0 to 255.
        """
        grouped = self.tiling(0, width, height).group_tiles
        return container.Header(width, height, mode, self.identity, self.tile_size, grouped, tradeoff)

    def read_indices(self, file: container.Container, limits: Limits = DEFAULT_LIMITS) -> IndexMaps:
        """Read the index maps that a file holds.

        Args:
            file: unpacked.
            limits: what reading may cost.

        Raises: FormatError, ModelError and ImageError as `decode`.
        """
        return reader.read(self, file, limits)
