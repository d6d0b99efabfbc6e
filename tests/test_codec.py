# SPDX-License-Identifier: Apache-2.0
"""The codec from image to bytes and back, with the tiny model (64-pixel tiles); then what the shipped one reaches."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image
from randomprior import random_maps

import vqcodec
from vqcodec.codec import Codec
from vqcodec.encoder import fitting
from vqcodec.errors import FormatError, ModelError, VqcodecError
from vqcodec.evaluation.rates import level_rates
from vqcodec.format import container
from vqcodec.model import registry, tiling
from vqcodec.model.maps import IndexMaps
from vqcodec.sampling import sample
from vqcodec.stream import reader
from vqcodec.stream.writer import frequencies

SIZES = [(1, 1), (7, 5), (255, 257), (2000, 37)]  # the last two: cut tiles, and more than one group


def noise(width: int, height: int, mode: str = "RGB", seed: int = 1) -> Image.Image:
    """Blocks of noise: neighbouring indices differ, so that each of them matters."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), len(mode)), np.uint8)
    pixels = small.repeat(4, 0).repeat(4, 1)[:height, :width]
    if mode.endswith("A"):
        pixels[..., -1] = rng.integers(0, 256, (height, width))
    return Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode)


def random_indices(codec: Codec, width: int, height: int) -> IndexMaps:
    """Index maps for an image of that size in which every symbol can occur."""
    auto = codec.config.autoencoder
    rows, columns = (-(-side // auto.coarsest) * auto.coarsest for side in (height, width))
    generator = torch.Generator().manual_seed(width)
    shapes = [(v.maps, rows // v.stride, columns // v.stride) for v in auto.levels]
    levels = [torch.randint(0, v.codes, s, generator=generator) for v, s in zip(auto.levels, shapes, strict=True)]
    return IndexMaps(tuple(levels), width, height)


@pytest.fixture
def installed(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model is installed, for the functions of the package."""
    monkeypatch.setenv(registry.ENVIRONMENT, str(tiny_models))
    return tiny_models


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_indices_come_back_exactly(tiny: Codec, width: int, height: int) -> None:
    levels = len(tiny.priors)
    groups = -(-(-(-width // 64) * -(-height // 64)) // 16)
    for indices in (random_indices(tiny, width, height), tiny.to_indices(np.asarray(noise(width, height)))):
        streams = tiny.compress(indices)
        assert len(streams) == groups * levels
        assert tiny.decompress(streams, width, height).equal(indices)


def stopping_indices(codec: Codec, width: int, height: int) -> IndexMaps:
    """Index maps in which positions stop at every stage."""
    coarsest = codec.config.autoencoder.coarsest
    rows, columns = (-(-side // coarsest) * coarsest for side in (height, width))
    levels = codec.config.autoencoder.levels
    maps = (random_maps(v, 1, rows // v.stride, columns // v.stride, width)[0] for v in levels)
    return IndexMaps(tuple(maps), width, height)


def test_every_small_size_comes_back(staged: Codec) -> None:
    """Every width and height from 1 to 40, and every shape of the maps: some steps of the order have no positions."""
    sizes = {(n, 41 - n) for n in range(1, 41)} | {(8 * i, 8 * j) for i in range(1, 6) for j in range(1, 6)}
    for width, height in sorted(sizes | {(n, 1) for n in range(1, 41, 5)} | {(1, n) for n in range(1, 41, 5)}):
        indices = stopping_indices(staged, width, height)
        assert staged.decompress(staged.compress(indices), width, height).equal(indices)


def test_pictures_through_stops_and_product_stages(staged: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is coded are the live positions inside the image, each once; other groups of tiles change nothing."""
    width, height = 100, 75
    indices = stopping_indices(staged, width, height)
    streams = staged.compress(indices, 200)
    assert staged.decompress(streams, width, height, tradeoff=200).equal(indices)
    assert staged.compress(indices, 0) != streams
    bits = 0.0
    levels = frequencies(staged, indices, tradeoff=200)
    for level, maps, coded in zip(staged.config.autoencoder.levels, indices.levels, levels, strict=True):
        tiles = staged.tiling(staged.config.autoencoder.levels.index(level), width, height).split(maps)
        assert len(coded) == level.maps
        for m, entry in enumerate(coded):
            assert torch.equal(tiles[:, m].flatten()[entry.position], entry.symbols)
            assert len(entry.position.unique()) == len(entry.position)
            assert entry.frequencies.shape == (len(entry.symbols), level.alphabets[m])
            probability = entry.frequencies.double() / entry.frequencies.double().sum(1, keepdim=True)
            bits -= float(probability.gather(1, entry.symbols[:, None]).log2().sum())
        assert int(sum((f.symbols != 0).sum() for f in coded)) == int((maps != 0).sum())
    words = 8 * sum(map(len, streams))
    assert bits <= words < bits + 64 * len(streams) + 0.001 * bits
    with monkeypatch.context() as patch:
        patch.setattr(tiling, "GROUP_TILES", 4)
        streams = staged.compress(indices, 200)
    for together in (1, 2, 4):
        monkeypatch.setattr(reader, "BATCH_GROUPS", together)
        assert staged.decompress(streams, width, height, 4, 200).equal(indices)


def test_the_tradeoff_of_a_lmbda(staged: Codec, tiny: Codec) -> None:
    lmbdas = (0.0, 0.01, 0.06, math.sqrt(0.12), 2.0, 50.0)
    assert [staged.tradeoff(lmbda) for lmbda in lmbdas] == [0, 0, 0, 128, 255, 255]
    assert {tiny.tradeoff(lmbda) for lmbda in lmbdas} == {0}  # it does not look at it


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 5), (70, 130)])
def test_size_mode_and_alpha(tiny: Codec, width: int, height: int, mode: str) -> None:
    image = noise(width, height, mode)
    decoded = tiny.decode(tiny.encode(image))
    assert (decoded.size, decoded.mode) == ((width, height), mode)
    if mode.endswith("A"):
        assert decoded.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_are_those_of_the_indices(tiny: Codec, width: int, height: int) -> None:
    image = noise(width, height)
    decoded = tiny.decode(tiny.encode(image))
    expected = tiny.from_indices(tiny.to_indices(np.asarray(image)))
    assert expected.shape == (height, width, 3)
    assert np.array_equal(np.asarray(decoded), expected)


def test_other_images_give_other_files_and_pixels(tiny: Codec) -> None:
    files = {tiny.encode(noise(64, 64, seed=seed)) for seed in range(4)}
    assert len(files) == 4
    assert len({tiny.decode(file).tobytes() for file in files}) == 4


def test_metadata_come_back(tiny: Codec) -> None:
    image = noise(7, 5)
    exif = Image.Exif()
    exif[274] = 6
    blocks = {"icc_profile": b"profile", "exif": exif.tobytes(), "xmp": b"<x/>"}
    image.info.update(blocks)
    assert tiny.decode(tiny.encode(image)).info == blocks


def test_another_process_decodes_to_the_same_pixels(tiny: Codec, installed: Path, tmp_path: Path) -> None:
    data = tiny.encode(noise(255, 257, "RGBA"))
    (tmp_path / "a.vq2").write_bytes(data)
    code = (
        "import sys, vqcodec; data = open(sys.argv[1], 'rb').read();"
        "sys.stdout.buffer.write(vqcodec.decode(data, device='cpu').tobytes())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.vq2")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), registry.ENVIRONMENT: str(installed)}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    assert result.stdout == tiny.decode(data).tobytes()


def test_batches_of_groups_do_not_matter(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    indices = random_indices(tiny, 255, 257)
    streams = tiny.compress(indices)
    monkeypatch.setattr(reader, "BATCH_GROUPS", 1)
    assert tiny.decompress(streams, 255, 257).equal(indices)


@pytest.mark.parametrize("group_tiles", [1, 2, 8])
def test_files_with_other_groups(tiny: Codec, monkeypatch: pytest.MonkeyPatch, group_tiles: int) -> None:
    image = noise(255, 257)
    expected = tiny.decode(tiny.encode(image))
    with monkeypatch.context() as patch:
        patch.setattr(tiling, "GROUP_TILES", group_tiles)
        data = tiny.encode(image)
    assert container.read_header(data).group_tiles == group_tiles
    assert tiny.decode(data).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_one_level(one_level: Codec, width: int, height: int) -> None:
    image = noise(width, height, "LA")
    data = one_level.encode(image, verify=True)
    decoded = one_level.decode(data)
    assert (decoded.size, decoded.mode) == ((width, height), "LA")
    parts = vqcodec.info(data)
    assert len(parts.level_bytes) == 1
    assert parts.groups * 4 <= parts.level_bytes[0] < parts.file_bytes
    pixels = np.asarray(image.convert("RGB"))
    expected = one_level.from_indices(one_level.to_indices(pixels))
    assert np.array_equal(np.asarray(decoded)[..., 0], expected[..., 0])
    (rates,) = level_rates(one_level, [pixels])
    assert rates.indices == -(-width // 4) * -(-height // 4)
    assert rates.stream == 8 * parts.level_bytes[0]


def test_verify(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(70, 66)
    data = tiny.encode(image)
    assert tiny.encode(image, verify=True) == data
    real = fitting.decompress
    for level in range(len(tiny.priors)):

        def wrong(*arguments: Any, level: int = level, **options: Any) -> IndexMaps:
            indices = real(*arguments, **options)
            indices.levels[level][-1, -1, -1] ^= 1
            return indices

        monkeypatch.setattr(fitting, "decompress", wrong)
        assert tiny.encode(image) == data
        with pytest.raises(VqcodecError, match="verification failed"):
            tiny.encode(image, verify=True)


def test_a_file_of_another_model(tiny: Codec, other: Codec, installed: Path) -> None:
    image = noise(7, 5)
    data = other.encode(image)
    assert other.decode(data).size == (7, 5)
    with pytest.raises(ModelError, match=f"{other.identity.hex()}.*{tiny.identity.hex()}"):
        tiny.decode(data)
    with pytest.raises(ModelError, match=f"{other.identity.hex()}.*not installed"):
        vqcodec.decode(data)


def test_models_are_found_by_name_path_and_identity(
    tiny: Codec, other: Codec, other_file: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = vqcodec.load_model("tiny", "cpu")
    assert (loaded.name, loaded.identity) == ("tiny", tiny.identity)
    assert vqcodec.load_model(installed / "tiny.safetensors", "cpu") is loaded
    path = tmp_path / "second.safetensors"
    shutil.copy(other_file, path)
    monkeypatch.setenv(registry.ENVIRONMENT, os.pathsep.join([str(installed), str(tmp_path)]))
    image = noise(20, 10)
    for name, model in (("tiny", tiny), ("second", other)):
        data = vqcodec.encode(image, model=name, device="cpu")
        assert data == model.encode(image)
        assert vqcodec.decode(data, device="cpu").tobytes() == model.decode(data).tobytes()
    shutil.copy(installed / "tiny.safetensors", path)
    assert vqcodec.load_model("second", "cpu").identity == tiny.identity
    with pytest.raises(ModelError, match="no device"):
        vqcodec.load_model("tiny", "nonsense")


def test_every_damage_to_a_small_file_is_noticed(tiny: Codec, installed: Path) -> None:
    data = tiny.encode(noise(7, 5, "LA"))
    assert vqcodec.decode(data).size == (7, 5)
    for position in range(len(data)):
        with pytest.raises(FormatError):
            vqcodec.decode(data[:position])
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError):
                vqcodec.decode(bytes(damaged))
    with pytest.raises(FormatError):
        vqcodec.decode(data + b"\0")


def test_damage_to_a_large_file_is_noticed(tiny: Codec, installed: Path) -> None:
    data = tiny.encode(noise(255, 257, "RGBA"))
    rng = np.random.default_rng(2)
    for position in rng.integers(0, len(data), 100).tolist():
        damaged = bytearray(data)
        damaged[position] ^= int(rng.integers(1, 256))
        for wrong in (bytes(damaged), data[:position]):
            with pytest.raises(FormatError):
                vqcodec.decode(wrong)


def test_whole_files_that_do_not_fit_the_model(tiny: Codec) -> None:
    file = container.unpack(tiny.encode(noise(20, 10)))
    wrong = (
        replace(file, header=replace(file.header, tile_size=128)),
        replace(file, streams=file.streams * 2),
        replace(file, streams=file.streams[:1]),
        replace(file, header=replace(file.header, mode="RGBA"), alpha=b"no PNG"),
    )
    for parts in wrong:
        with pytest.raises(FormatError):
            tiny.decode(container.pack(parts))


def test_forged_streams_give_an_image_or_an_error(tiny: Codec) -> None:
    """With right checksums nothing can tell them from an image: they must only not break anything."""
    file = container.unpack(tiny.encode(noise(70, 66)))
    rng = np.random.default_rng(3)
    forged = [tuple(rng.bytes(len(stream)) for stream in file.streams) for _ in range(4)]
    forged += [tuple(b"" for _ in file.streams), file.streams[::-1], tuple(b"\xff" * 400 for _ in file.streams)]
    for streams in forged:
        try:
            decoded = tiny.decode(container.pack(replace(file, streams=streams)))
        except FormatError:
            continue
        assert decoded.size == (70, 66)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (70, 130), (257, 260)])
def test_samples(tiny: Codec, width: int, height: int) -> None:
    image = sample(tiny, width, height, seed=5)
    assert (image.size, image.mode) == ((width, height), "RGB")
    assert sample(tiny, width, height, seed=5).tobytes() == image.tobytes()
    if width > 1:
        assert sample(tiny, width, height, seed=6).tobytes() != image.tobytes()
        tiles = np.asarray(image)
        assert not np.array_equal(tiles[:64, :6], tiles[64:128, :6])


@torch.inference_mode()
def test_settings_of_the_caller_do_not_matter(tiny: Codec, photo: NDArray[np.uint8]) -> None:
    """Autocast, another default type and a lower matmul precision around a call change nothing."""
    image = Image.fromarray(photo[:90, :130])
    encoded = tiny.encode(image)
    pixels = tiny.decode(encoded).tobytes()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert tiny.encode(image) == encoded
            assert tiny.decode(encoded).tobytes() == pixels
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(before)


def test_samples_follow_the_prior(tiny: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index costs on average as many bits as the entropies of the distributions that it was drawn from."""
    drawn: list[IndexMaps] = []
    real = tiny.from_indices
    monkeypatch.setattr(tiny, "from_indices", lambda maps, tradeoff: drawn.append(maps) or real(maps, tradeoff))
    sample(tiny, 256, 256, seed=1)
    for maps in frequencies(tiny, drawn[0]):
        for coded in maps:
            p = (coded.frequencies / coded.frequencies.sum(1, keepdim=True)).double()
            bits = -p.log2()
            entropy = (p * bits).sum(1)
            deviation = ((p * bits**2).sum(1) - entropy**2).sum().sqrt()
            cost = bits.gather(1, coded.symbols[:, None]).sum()
            assert abs(cost - entropy.sum()) < 5 * deviation
            assert entropy.mean() < 0.95 * math.log2(p.shape[1])


def test_the_shipped_model_on_a_photograph(shipped: Codec, photo: NDArray[np.uint8]) -> None:
    image = Image.fromarray(photo)
    data = shipped.encode(image, verify=True)
    decoded = shipped.decode(data)
    assert (decoded.size, decoded.mode) == (image.size, "RGB")
    error = np.asarray(decoded, np.float64) - photo
    psnr = 10 * math.log10(255**2 / (error**2).mean())
    assert psnr >= 24
    levels = shipped.config.autoencoder.levels
    indices = shipped.to_indices(photo)
    raw = sum(maps.numel() * math.log2(level.codes) for maps, level in zip(indices.levels, levels, strict=True))
    assert 8 * len(data) <= 0.75 * raw
