# SPDX-License-Identifier: Apache-2.0
"""How far the indices of an image go."""

from __future__ import annotations

from vqcodec.indices.arrays import Indices


def stages_used(indices: Indices) -> tuple[int, ...]:
    """Count how many stages of each level have an index that is not the end, coarsest level first; all where none may
    end."""
    used = []
    for maps, config in zip(indices.levels, indices.configs, strict=True):
        live = [not config.stop or bool(maps[config.stage_maps(stage)].any()) for stage in range(config.stages)]
        used.append(sum(live))
    return tuple(used)
