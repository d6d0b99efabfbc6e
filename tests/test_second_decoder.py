# SPDX-License-Identifier: Apache-2.0
"""What a decoder makes of a file that was written from the documents alone: the same indices."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, staged_config
from internals import ModelConfig, index_maps, load, random_file, save_random
from internals import container as parts
from seconddecoder import container, prior, ranges, weights, whole

from vqcodec.training.presets import VQVAE2_PRESETS

GOLDEN = sorted((ROOT / "tests" / "golden").glob("*/*.vq2"))
# Levels that stop and such as never do, product stages, attention in either level, conditions of both strides.
CONFIGS = {
    "waves": staged_config("waves"),
    "seven": staged_config("seven"),
    "never-stops": VQVAE2_PRESETS["tiny"],
    "wide": VQVAE2_PRESETS["tiny-light"],
}
SIZES = [(1, 1), (17, 33), (90, 50)]  # the last one: more than a group of 16-pixel tiles, and cut ones


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_files(path):
    model = weights.read(ROOT / "models" / f"{path.parent.name}.safetensors")
    digest = hashlib.sha256()
    for maps in whole.decode(container.read(path.read_bytes()), model):
        digest.update(maps.astype("<u2").tobytes())
    golden = json.loads((path.parent / "golden.json").read_text())
    assert digest.hexdigest() == golden["indices"][path.stem]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request, tmp_path_factory):
    """A weights file, and the codec of it."""
    path = tmp_path_factory.mktemp("second") / f"{request.param}.safetensors"
    save_random(path, CONFIGS[request.param], stopping=24)
    return path, load(path)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tradeoff", [0, 200])
def test_files_of_random_indices(model, size, tradeoff):
    path, codec = model
    file, written = random_file(codec, *size, tradeoff)
    decoded = whole.decode(container.read(file), weights.read(path))
    for ours, theirs, source in zip(index_maps(codec, file), decoded, written, strict=True):
        assert np.array_equal(theirs, source)
        assert np.array_equal(ours, source)


def test_attention_in_both_orders_at_the_finest_level(tmp_path):
    for order in ("waves", "seven"):
        config = staged_config(order)
        priors = (config.priors[0], replace(config.priors[1], attention_every=2, cond_above=False, out_channels=0))
        config = ModelConfig(config.autoencoder, priors, config.tile_size, config.lmbdas)
        path = save_random(tmp_path / f"{order}.safetensors", config)
        file, written = random_file(load(path), 40, 21)
        decoded = whole.decode(container.read(file), weights.read(path))
        assert all(map(np.array_equal, decoded, written))


def test_doubles_give_what_integers_give(model, monkeypatch):
    path, codec = model
    file, written = random_file(codec, 17, 33)
    monkeypatch.setattr(prior, "product", lambda x, weight: x @ weight)
    assert all(map(np.array_equal, whole.decode(container.read(file), weights.read(path)), written))


@pytest.mark.parametrize("codes", [2, 3, 7, 512, 4096])
def test_no_interval_is_empty(codes):
    rng = np.random.default_rng(codes)
    frequencies = np.exp(rng.uniform(0, np.log(2**23 / codes), (50, codes))).astype(np.int64)
    frequencies[0] = 1
    frequencies[1, 0] = 2**23
    limits = ranges.bounds(frequencies)
    assert (np.diff(limits) > 0).all()
    assert (limits[:, 0] == 0).all()
    assert (limits[:, -1] == 2**24).all()


def test_it_refuses_what_the_format_forbids(model):
    file = random_file(model[1], 17, 33)[0]
    assert container.read(file).streams == parts.unpack(file).streams
    for i in range(0, len(file), 7):
        with pytest.raises(ValueError, match=r"."):
            container.read(file[:i] + bytes([file[i] ^ 8]) + file[i + 1 :])
        with pytest.raises(ValueError, match=r"."):
            container.read(file[:i])
    with pytest.raises(ValueError, match="behind the last"):
        container.read(file + b"\0")
    with pytest.raises(ValueError, match="whole words"):
        ranges.RangeDecoder(b"123")


def test_it_shares_no_code_with_the_package():
    folder = ROOT / "tests" / "seconddecoder"
    for path in folder.glob("*.py"):
        imports = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not [line for line in imports if "vqcodec" in line or "torch" in line or "constriction" in line]
