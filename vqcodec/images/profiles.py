# SPDX-License-Identifier: Apache-2.0
"""Colour: ICC profiles of what a PNG file says by gAMA and cHRM, and CMYK through the profile that it has."""

from __future__ import annotations

import io
import math
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

SRGB_GAMMA = 1 / 2.2
SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""x and y of white, red, green and blue."""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_NEAR = 0.005  # chromaticities and gammas that differ by less are those of sRGB
_GAMMAS = 0.05, 20.0


def of_png(info: dict[Any, Any], grey: bool) -> bytes | None:
    """Make the ICC profile that gAMA and cHRM of a PNG file stand for; None where they say sRGB, or nothing sensible.

    Args:
        info: of the image, with `gamma` and `chromaticity` where the file has them; an `srgb` overrules both.
        grey: whether the pixels are grey: then it has a curve only.
    """
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    gamma, primaries = info.get("gamma", SRGB_GAMMA), info.get("chromaticity", SRGB_PRIMARIES)
    if not (isinstance(gamma, float) and _GAMMAS[0] <= gamma <= _GAMMAS[1]):
        return None
    near = abs(gamma - SRGB_GAMMA) < _NEAR
    if near and (grey or max(abs(a - b) for a, b in zip(primaries, SRGB_PRIMARIES, strict=True)) < _NEAR):
        return None
    colours = None if grey else _colours(primaries)
    return None if colours is None and not grey else _profile(1 / gamma, colours)


def _colours(primaries: tuple[float, ...]) -> NDArray[np.float64] | None:
    """XYZ of red, green and blue as columns, float64 [3, 3], seen under D50; None where these are no colours."""
    xy = np.array(primaries, np.float64).reshape(4, 2)
    if not (np.isfinite(xy).all() and (xy[:, 1] > 0).all()):
        return None
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    white, columns = xyz[:, 0], xyz[:, 1:]
    cones = _BRADFORD @ white
    if abs(np.linalg.det(columns)) < 1e-6 or (cones <= 0).any():
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD
    result: NDArray[np.float64] = adapted @ (columns * np.linalg.solve(columns, white))
    return result if np.abs(result).max() < 4 else None


def _profile(exponent: float, colours: NDArray[np.float64] | None) -> bytes:
    """An ICC profile, version 2.1, of a display: light is value^exponent. colours: as of `_colours`; None for grey."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, min(0xFFFF, round(exponent * 256)))
    name = b"gAMA\0" if colours is None else b"gAMA and cHRM\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"CC0\0", b"wtpt": _xyz(_D50)}
    if colours is None:
        tags[b"kTRC"] = curve
    else:
        for letter, column in zip((b"r", b"g", b"b"), colours.T, strict=True):
            tags[letter + b"XYZ"], tags[letter + b"TRC"] = _xyz(column), curve
    table, body, places = struct.pack(">I", len(tags)), b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for signature, data in tags.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += signature + struct.pack(">II", places[data], len(data))
    size = start + len(body)
    space = b"RGB " if colours is not None else b"GRAY"
    header = struct.pack(">I4xI4s4s4s12s4s", size, 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp")
    return header.ljust(68, b"\0") + _xyz(_D50)[8:].ljust(60, b"\0") + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def cmyk_to_rgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Turn a CMYK image into sRGB by its profile.

    Args:
        image: of mode CMYK.
        profile: ICC profile.

    Returns: None, with a warning, where the profile is none of CMYK or broken.
    """
    if profile[16:20] != b"CMYK":
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        sRGB = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, sRGB, intent, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(f"the CMYK profile cannot be used: {error}", stacklevel=4)
        return None


def finite(dpi: object) -> tuple[float, float] | None:
    """Two numbers of dots an inch, both above 0; None for anything else."""
    try:
        across, down = (float(value) for value in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if all(0 < value < 1e6 and math.isfinite(value) for value in (across, down)) else None
