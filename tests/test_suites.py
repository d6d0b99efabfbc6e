# SPDX-License-Identifier: Apache-2.0
"""Files of the public suites, drawn again: every valid one goes round, every other one is refused in one line."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from suites import others, png

import vqcodec
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.errors import ImageError
from vqcodec.images import imaging, opening

VALID = {name: data for name, data, valid in png.files() if valid} | dict(others.valid())
INVALID = {name: data for name, data, valid in png.files() if not valid} | dict(others.refused())
DAMAGED = dict(others.damaged())


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_there_are_as_many_as_in_the_suites() -> None:
    assert len(VALID) + len(INVALID) + len(DAMAGED) >= 304
    assert len(png.VALID) == len(set(png.VALID))


def shown(data: bytes) -> Image.Image:
    """What Pillow shows of a file, in 8 bits, by its own conversions."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_every_valid_one_goes_round_without_loss() -> None:
    for name, data in VALID.items():
        picture = imaging.from_pil(opening.open_bytes(data))
        back = vqcodec.decode(vqcodec.encode(data, lossless=True))
        expected = imaging.to_pil(picture)
        assert (back.size, back.mode) == (shown(data).size, picture.mode), name
        assert back.tobytes() == expected.tobytes(), name
        assert back.info == expected.info, name
        for key in ("exif", "icc_profile", "xmp"):
            if key in shown(data).info and shown(data).mode != "CMYK":
                assert back.info[key] == shown(data).info[key], name


def test_pixels_are_those_of_pillow() -> None:
    for name, data in VALID.items():
        image = shown(data)
        if image.mode in ("1", "L", "RGB", "RGBA", "LA") and not image.has_transparency_data:
            expected = image.convert("L" if image.mode == "1" else image.mode)
            assert imaging.to_pil(imaging.from_pil(opening.open_bytes(data))).tobytes() == expected.tobytes(), name


def test_valid_ones_go_through_a_model(tiny: Codec) -> None:
    for name, data in list(VALID.items())[::9]:  # what the model sees are pixels: see above
        coded = tiny.encode(data, effort=1, fallback=False)
        assert tiny.decode(coded).size == shown(data).size, name


def test_every_other_one_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, data in INVALID.items():
        with pytest.raises(ImageError) as caught:
            vqcodec.encode(data, lossless=True)
        assert len(str(caught.value).splitlines()) == 1, name
    for number, data in enumerate(INVALID.values()):
        (tmp_path / f"{number}.png").write_bytes(data)
    result = CliRunner().invoke(main, ["encode", "--lossless", "-O", str(tmp_path / "out"), str(tmp_path)])
    errors = [line for line in result.output.splitlines() if "error:" in line]
    assert (result.exit_code, len(errors)) == (1, len(INVALID))
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("out/*"))


def test_damaged_ones_are_what_pillow_makes_of_them_or_refused_in_one_line() -> None:
    refusals = {name: said for name, data in DAMAGED.items() if (said := refusal(data)) is not None}
    assert len(refusals) > len(DAMAGED) / 2
    assert all(len(said.splitlines()) == 1 for said in refusals.values())
    for name in DAMAGED.keys() - refusals:
        shown(DAMAGED[name])


def refusal(data: bytes) -> str | None:
    """Why a file is refused, None if it goes through."""
    try:
        vqcodec.encode(data, lossless=True)
    except ImageError as error:
        return str(error)
    return None
