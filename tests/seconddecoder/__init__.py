# SPDX-License-Identifier: Apache-2.0
"""A second decoder of `.vq2` files, from bytes to index maps, that shares no code with `vqcodec`.

It is written from `docs/format.md` and `docs/prior.md` alone, in plain Python and int64 NumPy: no torch, no
constriction, no safetensors. Slow, and exact by nature: what it decodes is what the documents say.

    file = container.read(data)                        # the bytes of a .vq2 file
    model = weights.read(path)                         # a weights file
    maps = whole.decode(file, model)                   # by level, coarsest first: int64 [maps, H / stride, W / stride]
"""
