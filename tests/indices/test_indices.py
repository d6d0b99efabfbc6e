# SPDX-License-Identifier: Apache-2.0
"""Indices as data: images and .vq2 files to .npz files and back, and .npz files that are none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from npz import arrays, members, npy, same, zipped
from PIL import Image

import vqcodec
from vqcodec.cli import main
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig
from vqcodec.errors import FormatError, ModelError
from vqcodec.format import container
from vqcodec.indices import arrays as indices_module
from vqcodec.indices.arrays import Indices, dumps, extract, load, save, to_vq2
from vqcodec.sampling import sample_indices

SIZE = (130, 70)


@pytest.fixture
def folder(tiny_folder: Path, image: Image.Image) -> Path:
    """The working directory, with a.png; the tiny model is installed and the default."""
    image.save("a.png")
    return tiny_folder


def test_what_a_file_holds(tiny: Codec, image: Image.Image, image_indices: Indices) -> None:
    held = arrays(image_indices)
    numbers = {"strides": [8, 4], "codebooks": [1, 2], "codes": [32, 16], "dims": [8, 8], "stops": [0, 0]}
    numbers |= {"products": [0, 0], "groups": [1, 1], "group_codes": [64, 64]}
    assert sorted(held) == sorted(["height", "identity", "level0", "level1", "model", "rate", "width", *numbers])
    assert (held["width"], held["height"], str(held["model"])) == (130, 70, "tiny")
    assert str(held["identity"]) == tiny.identity.hex()
    assert {name: held[name].tolist() for name in numbers} == numbers
    assert {str(held[name].dtype) for name in ("width", "height", *numbers)} == {"int64"}
    assert (str(held["rate"].dtype), held["rate"].shape, image_indices.rate) == ("uint8", (), int(held["rate"]))
    for level, maps in enumerate(tiny.to_indices(np.asarray(image)).levels):
        assert held[f"level{level}"].dtype == np.uint16
        assert np.array_equal(held[f"level{level}"], maps.numpy())
    assert held["level1"].shape == (2, 18, 34)


def test_saving_and_loading(image_indices: Indices, tmp_path: Path) -> None:
    save(tmp_path / "a.data", image_indices)
    assert same(load(tmp_path / "a.data"), image_indices)
    file = io.BytesIO()
    save(file, image_indices)
    assert file.getvalue() == (tmp_path / "a.data").read_bytes() == dumps(image_indices)
    file.seek(0)
    assert same(load(file), image_indices)
    plain = io.BytesIO()  # as numpy writes it without compression, one array in Fortran order, and a key too many
    np.savez(
        plain, **{**arrays(image_indices), "level1": np.asfortranarray(image_indices.levels[1]), "more": np.zeros(3)}
    )
    plain.seek(0)
    assert same(load(plain), image_indices)


def test_images_files_and_indices(tiny: Codec, image: Image.Image, image_indices: Indices, folder: Path) -> None:
    coded = tiny.encode(image)
    assert same(vqcodec.to_indices(image, device="cpu"), image_indices)
    assert same(vqcodec.to_indices(coded, device="cpu"), image_indices)
    assert vqcodec.from_indices(image_indices, device="cpu").tobytes() == tiny.decode(coded).tobytes()
    assert to_vq2(image_indices, device="cpu") == coded


def test_alpha_and_grey(tiny: Codec, image: Image.Image, folder: Path) -> None:
    grey = image.convert("L")
    transparent = image.copy()
    transparent.putalpha(grey)
    for source in (transparent, tiny.encode(transparent)):
        with pytest.warns(UserWarning, match="no alpha"):
            held = vqcodec.to_indices(source, device="cpu")
        assert same(held, vqcodec.to_indices(image, device="cpu"))
    held = vqcodec.to_indices(grey, device="cpu")
    assert vqcodec.from_indices(held, device="cpu").mode == "RGB"
    assert same(vqcodec.to_indices(tiny.encode(grey), device="cpu"), held)


def test_one_level(one_level: Codec, one_level_file: Path, image: Image.Image) -> None:
    held = load(io.BytesIO(dumps(extract(one_level, image))))
    assert [maps.shape for maps in held.levels] == [(1, 18, 33)]
    back = vqcodec.from_indices(held, model=one_level_file, device="cpu")
    assert back.tobytes() == one_level.decode(one_level.encode(image)).tobytes()
    assert to_vq2(held, model=one_level_file, device="cpu") == one_level.encode(image)


def test_indices_of_another_model(
    tiny: Codec, other: Codec, image: Image.Image, image_indices: Indices, folder: Path
) -> None:
    foreign = extract(other, image)
    with pytest.raises(ModelError, match=f"{other.identity.hex()}, which is not installed"):
        vqcodec.from_indices(foreign, device="cpu")
    with pytest.raises(ModelError, match=f"those of model other .{other.identity.hex()}., this is tiny"):
        vqcodec.from_indices(foreign, model="tiny", device="cpu")
    claimed = replace(image_indices, configs=(image_indices.configs[0], replace(image_indices.configs[1], codes=64)))
    with pytest.raises(FormatError, match="not those of model tiny"):
        vqcodec.from_indices(claimed, device="cpu")


def test_indices_that_do_not_fit_together(image_indices: Indices) -> None:
    top, bottom = image_indices.levels
    wrong: list[dict[str, Any]] = [
        {"levels": (top, bottom.astype(np.int64))},
        {"levels": (top, bottom[:, :-1])},
        {"levels": (top, bottom[0])},
        {"levels": (top, bottom[:0])},
        {"levels": (top,)},
        {"levels": (bottom, top)},
        {"levels": (top, bottom + 16)},
        {"width": 0},
        {"width": 136 + 1},
        {"height": 70000},
        {"rate": -1},
        {"rate": 256},
        {"configs": ()},
        {"configs": image_indices.configs[:1]},
        {"configs": image_indices.configs[::-1]},
    ]
    for changes in wrong:
        with pytest.raises(FormatError):
            replace(image_indices, **changes)
    for field, value in (
        ("stride", 8), ("stride", 3), ("stride", 16), ("stride", 0), ("codebooks", 1), ("codebooks", 0),
        ("codebooks", 1 << 62), ("codes", 1), ("codes", 1 << 17), ("dim", 0), ("stop", 2), ("products", 1),
        ("products", -1), ("groups", 0), ("group_codes", 1),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            replace(
                image_indices, configs=(image_indices.configs[0], replace(image_indices.configs[1], **{field: value}))
            )
    room = 3 * 72 * 136 - top.size
    with pytest.raises(FormatError, match="more indices than"):
        replace(
            image_indices,
            configs=(image_indices.configs[0], replace(image_indices.configs[1], codebooks=room // bottom[0].size + 1)),
        )


STOPPING = LevelConfig(8, 2, 8, 12, stop=True, products=2, groups=3, group_codes=4)


def stopped(*columns: list[int], config: LevelConfig = STOPPING) -> Indices:
    """A map of one row, a column a position: indices of the stages, then of the groups; zeros after those given."""
    maps = np.zeros((config.maps, 1, len(columns)), np.uint16)
    for x, column in enumerate(columns):
        maps[: len(column), 0, x] = column
    return Indices((maps,), 8 * len(columns), 8, (config,), "stopping", bytes(4), 77)


def test_positions_that_stop() -> None:
    allowed = [[], [1], [1, 2], [7, 7, 0, 3, 0], [1, 1, 1, 0, 0, 0, 0, 3], [1, 1, 3, 3, 3, 3, 3, 3]]
    held = stopped(*allowed)
    assert same(load(io.BytesIO(dumps(held))), held)
    assert load(io.BytesIO(dumps(held))).rate == 77
    for wrong in ([0, 1], [1, 0, 1], [1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0, 0, 1]):
        with pytest.raises(FormatError, match="in stage . where the position has stopped"):
            stopped(*allowed, wrong)
        free = stopped(*allowed, wrong, config=replace(STOPPING, stop=False))
        assert same(load(io.BytesIO(dumps(free))), free)
        lying = {"stops.npy": npy(np.array([1])), **{k: v for k, v in members(free).items() if k != "stops.npy"}}
        with pytest.raises(FormatError, match="in stage . where the position has stopped"):
            load(io.BytesIO(zipped(lying)))
    for wrong in ([8], [1, 8], [1, 1, 4], [1, 1, 1, 1, 1, 1, 1, 4]):
        with pytest.raises(FormatError, match="has the index"):
            stopped(wrong)


def test_the_rate_goes_along(staged: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = sample_indices(staged, 40, 24, seed=5, tradeoff=200)
    streams = tuple(staged.compress(maps, 200))
    data = container.pack(container.Container(staged.header(40, 24, "RGB", 200), streams))
    held = load(io.BytesIO(dumps(extract(staged, data))))
    assert (held.rate, held.configs) == (200, staged.config.autoencoder.levels)
    monkeypatch.setattr("vqcodec.codec.load_identity", lambda *_: staged)
    assert to_vq2(held) == data
    assert vqcodec.from_indices(held).tobytes() == staged.decode(data).tobytes()
    assert to_vq2(replace(held, rate=100)) != data


# The command


def vq(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["indices", *arguments, "--device", "cpu"], input=stdin)


def test_the_way_there_and_back(folder: Path, tiny: Codec, image: Image.Image, image_indices: Indices) -> None:
    coded = tiny.encode(image)
    Path("a.vq2").write_bytes(coded)
    result = vq("a.png", "a.npz")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "a.png -> a.npz" in result.stderr
    assert vq("a.vq2", "b.npz", "--quiet").stderr == ""
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes() == dumps(image_indices)
    assert vq("a.npz", "back.vq2").exit_code == 0
    assert Path("back.vq2").read_bytes() == coded
    assert vq("a.npz", "back.png").exit_code == 0
    assert vq("a.npz", "back", "--format", "tiff").exit_code == 0
    for name in ("back.png", "back"):
        with Image.open(name) as shown:
            assert shown.tobytes() == tiny.decode(coded).tobytes()
    assert vq("a.png", "a.npz").exit_code == 1
    assert vq("a.png", "a.npz", "-f").exit_code == 0


def test_streams(folder: Path, tiny: Codec, image: Image.Image, image_indices: Indices) -> None:
    assert vq("-", "-", stdin=Path("a.png").read_bytes()).stdout_bytes == dumps(image_indices)
    assert vq("a.png", "-").stdout_bytes == dumps(image_indices)
    save("a.npz", image_indices)
    with Image.open(io.BytesIO(vq("a.npz", "-").stdout_bytes)) as shown:
        assert (shown.format, shown.tobytes()) == ("PNG", tiny.decode(tiny.encode(image)).tobytes())
    assert vq("-", "b.vq2", stdin=dumps(image_indices)).exit_code == 0
    assert Path("b.vq2").read_bytes() == tiny.encode(image)


def test_alpha_is_left_out_with_a_warning(folder: Path, image: Image.Image, image_indices: Indices) -> None:
    transparent = image.copy()
    transparent.putalpha(77)
    transparent.save("alpha.png")
    result = vq("alpha.png", "a.npz", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == "vqcodec: warning: alpha.png: indices carry no alpha channel: it is left out\n"
    assert Path("a.npz").read_bytes() == dumps(image_indices)


def test_errors(folder: Path, image_indices: Indices, other: Codec, image: Image.Image) -> None:
    save("a.npz", image_indices)
    save("other.npz", extract(other, image))
    Path("text.npz").write_text("no indices")
    before = {path.name for path in folder.iterdir()}
    for arguments, message in (
        (["a.png", "b.png"], "a.png: not an .npz file of indices"),
        (["text.npz", "b.png"], "text.npz: not an .npz file of indices"),
        (["a.npz", "b.npz"], "a.npz: not an image"),
        (["a.npz", "b.unknown"], "no image format"),
        (["missing.npz", "b.png"], "missing.npz: No such file"),
        (["other.npz", "b.png"], f"{other.identity.hex()}, which is not installed"),
        (["other.npz", "b.vq2", "--model", "tiny"], f"those of model other ({other.identity.hex()})"),
        (["a.png", "b.npz", "--model", "missing"], "'missing' is not installed"),
    ):
        result = vq(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("vqcodec: error: "), result.output
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
    assert vq("a.png").exit_code == 2
    assert {path.name for path in folder.iterdir()} == before


def test_the_package_has_the_names() -> None:
    assert (vqcodec.Indices, vqcodec.to_indices) == (indices_module.Indices, indices_module.to_indices)
    assert vqcodec.from_indices is indices_module.from_indices
