# SPDX-License-Identifier: Apache-2.0
"""Every byte of a file is in one part, rates are those of files, and what is an estimate says so."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import load_tool
from PIL import Image, ImageCms
from randomprior import random_tensors
from torch import Tensor

import vqcodec
from vqcodec.codec import Codec
from vqcodec.config import LevelConfig
from vqcodec.evaluation import bits_per_dim, rates
from vqcodec.format import container
from vqcodec.model import registry, weights
from vqcodec.model.maps import IndexMaps
from vqcodec.prior.export import from_integers
from vqcodec.prior.network import LevelPrior
from vqcodec.sampling import sample_indices
from vqcodec.training.presets import VAE_PRESETS
from vqcodec.vae.network import VAE

IN_NO_FILE = ("raw", "order0", "ideal", "float", "elbo", "kl", "reconstruction", "importance")


def drawn(mode: str, width: int, height: int) -> Image.Image:
    """Noise on a ramp, and as alpha a ramp."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(width).integers(0, 40, (height, width, 3))
    colours = Image.fromarray(((x + 2 * y)[..., None] % 200 + noise).astype(np.uint8)).convert(mode)
    if mode.endswith("A"):
        colours.putalpha(Image.fromarray((x % 256).astype(np.uint8)))
    return colours


def described(mode: str, width: int, height: int, *blocks: str) -> Image.Image:
    """The same with metadata."""
    image = drawn(mode, width, height)
    exif = Image.Exif()
    exif[0x010E] = "a description"
    known = {
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "exif": exif.tobytes(),
        "xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
    }
    image.info.update({block: known[block] for block in blocks})
    return image


PICTURES = {
    "rgb": drawn("RGB", 100, 70),
    "grey": drawn("L", 33, 65),
    "grey with alpha": drawn("LA", 20, 10),
    "alpha": drawn("RGBA", 64, 64),
    "icc": described("RGB", 50, 40, "icc_profile"),
    "exif": described("RGB", 50, 40, "exif"),
    "all": described("RGBA", 70, 40, "icc_profile", "exif", "xmp"),
    "one pixel": drawn("RGB", 1, 1),
    "one grey pixel with alpha": drawn("LA", 1, 1),
    "several groups": drawn("RGB", 330, 260),
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("model", ["tiny", "one_level"])
def test_the_parts_add_up_to_the_file(picture: str, model: str, request: pytest.FixtureRequest) -> None:
    codec: Codec = request.getfixturevalue(model)
    image = PICTURES[picture]
    data = codec.encode(image)
    measured = rates.encoded_rates(codec, image, picture)
    parts = bits_per_dim.parts(measured)
    assert sum(parts.values()) == measured.size == len(data)
    assert (measured.bpp, measured.bits_per_dim) == (vqcodec.info(data).bpp, vqcodec.info(data).bits_per_dim)
    assert measured.bits_per_dim == pytest.approx(8 * len(data) / np.asarray(image).size)
    assert bool(parts["alpha"]) == image.mode.endswith("A")
    assert bool(parts["metadata"]) == bool(image.info)
    for tally, level in zip(measured.tallies, codec.config.autoencoder.levels, strict=True):
        level_rates = tally.rates()
        coarsest = codec.config.autoencoder.coarsest
        width, height = (-(-side // coarsest) * coarsest // level.stride for side in image.size)
        assert level_rates.positions == width * height
        assert level_rates.indices == width * height * level.maps
        assert level_rates.stages == level.stages  # neither model stops
        # Each group ends in whole words, and its range coder may keep a word more than is needed.
        groups = vqcodec.info(data).groups
        assert level_rates.ideal - 1 <= level_rates.stream <= level_rates.ideal * 1.002 + 64 * groups


def test_measuring_changes_neither_file_nor_codec(tiny: Codec) -> None:
    before = dict(tiny.__dict__)
    data = tiny.encode(PICTURES["rgb"])
    assert rates.encoded_rates(tiny, PICTURES["rgb"]).size == len(data)
    assert tiny.encode(PICTURES["rgb"]) == data
    assert tiny.__dict__ == before


def packed(codec: Codec, maps: IndexMaps, tradeoff: int) -> bytes:
    """The file of an RGB image that has these index maps."""
    streams = tuple(codec.compress(maps, tradeoff))
    return container.pack(container.Container(codec.header(*maps.size, "RGB", tradeoff), streams))


def live(maps: Tensor, level: LevelConfig) -> Tensor:
    """Where the indices of a level are coded, bool like the maps."""
    where = torch.ones(maps.shape[1:], dtype=torch.bool)
    mask = torch.zeros(maps.shape, dtype=torch.bool)
    for stage in range(level.stages):
        mask[level.stage_maps(stage)] = where
        where = where & maps[level.stage_maps(stage)].any(0)
    return mask


@pytest.mark.parametrize("size", [(70, 50), (16, 16), (5, 33)])
def test_what_is_not_coded_is_not_counted(staged: Codec, size: tuple[int, int]) -> None:
    maps = sample_indices(staged, *size, seed=5, tradeoff=77)
    measured = rates.take_apart(staged, packed(staged, maps, 77))
    assert measured.header.rate == 77
    groups = container.number_of_groups(measured.header)
    for level, level_maps, tally in zip(staged.config.autoencoder.levels, maps.levels, measured.tallies, strict=True):
        where = live(level_maps, level)
        for index, mask, counts, codes in zip(level_maps, where, tally.counts, level.alphabets, strict=True):
            assert counts.tolist() == torch.bincount(index[mask], minlength=codes).tolist()
        level_rates = tally.rates()
        stages = sum(int(where[level.stage_maps(stage).start].sum()) for stage in range(level.stages))
        assert level_rates.positions == level_maps[0].numel()
        assert level_rates.stages == pytest.approx(stages / level_maps[0].numel())
        assert level_rates.raw == pytest.approx(
            sum(int(mask.sum()) * np.log2(codes) for mask, codes in zip(where, level.alphabets, strict=True))
        )
        assert level_rates.ideal - 1 <= level_rates.stream <= level_rates.ideal * 1.002 + 64 * groups
    if size == (70, 50):
        assert all(1 < tally.rates().stages < level.stages for tally, level in
                   zip(measured.tallies, staged.config.autoencoder.levels, strict=True))  # fmt: skip
    assert "Stages that a position uses, on average: top " in bits_per_dim.text("a", [measured])


def test_sums_over_a_set_are_those_of_the_images(tiny: Codec) -> None:
    images = [PICTURES["rgb"], PICTURES["several groups"]]
    files = [rates.encoded_rates(tiny, image, str(i)) for i, image in enumerate(images)]
    sums = bits_per_dim.summary(files)
    together = rates.level_rates(tiny, [np.asarray(image) for image in images])
    assert list(sums["levels"]) == ["top", "bottom"]
    for level, expected in zip(sums["levels"].values(), together, strict=True):
        assert level["stream_bits"] == expected.stream
        assert level["order0_bits_estimate"] == pytest.approx(expected.order0)
        assert level["ideal_bits_estimate"] == pytest.approx(expected.ideal)
        assert level["ideal_nats_per_index_estimate"] == pytest.approx(expected.ideal / expected.indices * np.log(2))
    # one table for both images cannot be better than one for each
    separate = sum(file.tallies[1].rates().order0 for file in files)
    assert sums["levels"]["bottom"]["order0_bits_estimate"] > separate
    assert sum(sums["part_bytes"].values()) == sums["file_bytes"] == files[0].size + files[1].size
    assert sums["bpp"]["mean"] == pytest.approx((files[0].bpp + files[1].bpp) / 2)
    assert sums["bits_per_dim"]["worst"] == max(file.bits_per_dim for file in files)


def test_the_worst_image_is_named_and_the_median_is_one_of_the_middle(tiny: Codec) -> None:
    base = rates.encoded_rates(tiny, PICTURES["rgb"])
    files = [replace(base, name=str(size), size=size) for size in (900, 100, 500)]
    sums = bits_per_dim.summary(files)
    assert sums["worst_image"] == "900"
    assert sums["bpp"] == {"mean": 8 * 500 / 7000, "median": 8 * 500 / 7000, "worst": 8 * 900 / 7000}


def test_order_zero_is_the_entropy_of_the_indices() -> None:
    counts = (np.array([2, 1, 1, 0]), np.array([0, 2]))  # the second map has two codes, and two positions stop before
    tally = rates.Tally(counts, 4, 6, 9.0, None, 32)
    measured = tally.rates()
    assert (measured.positions, measured.indices, measured.stages) == (4, 6, 1.5)
    assert (measured.raw, measured.order0) == (10, 6)  # 4 of 2 and 2 of 1 bit; 4 of 1.5 bits, 2 of none
    assert measured.usage == [0.75, 0.5]
    both = (tally + replace(tally, floating=3.0)).rates()
    assert (both.floating, both.positions, both.stages, both.order0) == (None, 8, 1.5, 12)


def test_the_float_network_is_evaluated_where_tiles_are_whole(tiny: Codec, tiny_models: Path) -> None:
    floats = rates.float_priors(registry.find(tiny_models / "tiny.safetensors"), tiny)
    whole, cut = (rates.encoded_rates(tiny, drawn("RGB", w, 64), str(w), floats) for w in (1280, 100))
    assert [tally.floating is None for tally in (*whole.tallies, *cut.tallies)] == [False, False, True, True]
    cost = bits_per_dim.rounding_cost([whole, cut])
    assert cost is not None
    assert cost["images"] == 1
    assert cost["integer_ideal_bits_estimate"] == pytest.approx(sum(t.ideal for t in whole.tallies))
    assert abs(cost["cost_percent_estimate"]) < 5
    assert bits_per_dim.rounding_cost([cut]) is None


def test_the_float_network_knows_stops_and_the_rate(staged: Codec) -> None:
    levels = staged.config.autoencoder.levels
    floats = []
    for i, (prior, level) in enumerate(zip(staged.config.priors, levels, strict=True)):
        floats.append(LevelPrior(prior, level, levels[:i]).eval())
        from_integers(floats[i], random_tensors(prior, level, levels[:i], i, stopping=24))  # as in `staged_codec`
    maps = sample_indices(staged, 64, 48, seed=5, tradeoff=200)
    lengths = []
    for tradeoff in (200, 0):
        integers = rates.take_apart(staged, packed(staged, maps, tradeoff), floats=floats)
        assert all(tally.floating is not None for tally in integers.tallies)
        lengths.append([(tally.ideal, tally.floating) for tally in integers.tallies])
    for (ideal, floating), (other, _) in zip(*lengths, strict=True):
        assert ideal == pytest.approx(floating, rel=0.05)
        assert ideal != other


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("bits_per_dim")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A folder with a folder in it, a zip, and a file."""
    folder = tmp_path / "set"
    (folder / "inner").mkdir(parents=True)
    image = PICTURES["icc"]
    image.save(folder / "b.png", icc_profile=image.info["icc_profile"])
    PICTURES["alpha"].save(folder / "inner" / "a.png")
    (folder / "notes.txt").write_text("not an image")
    PICTURES["grey"].save(tmp_path / "grey.png")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "grey.png", "in/zip.png")
    return [folder, tmp_path / "more.zip", tmp_path / "grey.png"]


@pytest.fixture
def vae_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    vae = VAE(VAE_PRESETS["tiny"])
    path = tmp_path / "small-vae.safetensors"
    weights.save(path, {f"vae.{k}": v for k, v in vae.state_dict().items()}, {"model": vae.config.to_dict()})
    return path


def test_command_line(
    tool: ModuleType, pictures: list[Path], tiny: Codec, tiny_models: Path, one_level_file: Path, tmp_path: Path
) -> None:
    models = tiny_models / "tiny.safetensors", one_level_file
    arguments = [*map(str, pictures), "--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    arguments += [part for model in models for part in ("--model", str(model))]
    result = CliRunner().invoke(tool.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with (tmp_path / "a.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = ["set/b.png", "set/inner/a.png", "more.zip/in/zip.png", "grey.png"]
    assert [(row["model"], row["image"]) for row in rows] == [(m.stem, name) for m in models for name in names]
    for row, path in zip(rows, (pictures[0] / "b.png", pictures[0] / "inner" / "a.png"), strict=False):
        with Image.open(path) as image:
            data = tiny.encode(image)
        assert int(row["file_bytes"]) == len(data)
        parts = ("top_bytes", "bottom_bytes", "header_and_checksums_bytes", "metadata_bytes", "alpha_bytes")
        assert sum(int(row[part]) for part in parts) == len(data)
    assert int(rows[0]["metadata_bytes"]) > 100
    assert [row["channels"] for row in rows[:4]] == ["3", "4", "1", "1"]
    assert rows[4]["top_bytes"] == "" != rows[4]["indices_bytes"]
    everything = json.loads((tmp_path / "a.json").read_text())
    assert [len(model["per_image"]) for model in everything] == [4, 4]
    assert everything[0]["file_bytes"] == sum(int(row["file_bytes"]) for row in rows[:4])
    assert f"| file | {everything[0]['file_bytes']} | 100.00 % |" in result.stdout


def test_without_metadata(tool: ModuleType, pictures: list[Path], tiny_models: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    arguments = [str(pictures[0]), "--model", str(tiny_models / "tiny.safetensors"), "--json", str(out)]
    CliRunner().invoke(tool.main, [*arguments, "--no-metadata"], catch_exceptions=False)
    (record,) = json.loads(out.read_text())
    assert record["part_bytes"]["metadata"] == 0 < record["part_bytes"]["alpha"]


def keys(tree: object) -> set[str]:
    if isinstance(tree, dict):
        return {*tree, *(key for value in tree.values() for key in keys(value))}
    return {key for item in tree for key in keys(item)} if isinstance(tree, list) else set()


def test_estimates_are_called_so(
    tool: ModuleType, pictures: list[Path], tiny_models: Path, vae_file: Path, tmp_path: Path
) -> None:
    arguments = [str(pictures[0]), "--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    arguments += ["--model", str(tiny_models / "tiny.safetensors"), "--model", str(vae_file), "--samples", "2"]
    result = CliRunner().invoke(tool.main, arguments, catch_exceptions=False)
    header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    everything = json.loads((tmp_path / "a.json").read_text())
    names = {*header, *keys(everything)} - {"float"}  # which holds such figures by their own names
    ours = {name for name in names if any(word in name for word in IN_NO_FILE)}
    assert len(ours) >= 16
    assert all(name.endswith("_estimate") for name in ours)
    assert all("bound" in name for name in names if "elbo" in name or "importance" in name)
    assert not any("estimate" in name for name in ("file_bytes", "bpp", "bits_per_dim", "top_stream_bits"))
    for line in result.stdout.splitlines():
        if any(word in line for word in ("raw", "order-0", "ideal", "nats", "ELBO", "KL", "bits per dim, bound")):
            assert "estimate" in line, line
    vae = everything[1]
    assert vae["kind"] == "vae"
    means = vae["means"]
    whole = means["reconstruction_bits_per_dim_estimate"] + means["kl_bits_per_dim_estimate"]
    assert means["elbo_bits_per_dim_bound_estimate"] == pytest.approx(whole)
    assert "file_bytes" not in keys(vae)


def test_wrong_command_lines(tool: ModuleType, tmp_path: Path) -> None:
    assert CliRunner().invoke(tool.main, []).exit_code == 2
    (tmp_path / "empty").mkdir()
    assert "no image" in CliRunner().invoke(tool.main, [str(tmp_path / "empty")]).output
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert CliRunner().invoke(tool.main, [str(tmp_path / "broken.png"), "--no-float"]).exit_code == 1
