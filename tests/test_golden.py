# SPDX-License-Identifier: Apache-2.0
"""Files written once must decode to the same indices for ever, here as elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden import FOLDER, MODELS, decoded_indices, indices_hash, pictures
from skimage.metrics import peak_signal_noise_ratio

import vqcodec
from vqcodec.format import container

GOLDEN = {model: json.loads((FOLDER / model / "golden.json").read_text()) for model in MODELS}
FILES = [(model, name) for model in MODELS for name in sorted(GOLDEN[model]["indices"])]


@pytest.mark.parametrize("model", MODELS)
def test_there_is_a_hash_for_every_file(model):
    files = sorted(path.stem for path in (FOLDER / model).glob("*.vq2"))
    assert sorted(GOLDEN[model]["indices"]) == files == sorted(pictures())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("model", "name"), FILES)
def test_indices_have_not_changed(model, name, threads):
    torch.set_num_threads(threads)
    codec = vqcodec.load_model(model, "cpu")
    file = (FOLDER / model / f"{name}.vq2").read_bytes()
    assert container.read_header(file).model.hex() == GOLDEN[model]["identity"] == codec.identity.hex()
    indices = decoded_indices(codec, file)
    assert indices_hash(indices) == GOLDEN[model]["indices"][name]
    # and the encoder's probabilities give the very same bytes
    parts = container.unpack(file)
    assert tuple(codec.compress(indices, parts.header.rate)) == parts.streams


@pytest.mark.parametrize(("model", "name"), FILES)
def test_pictures_look_like_their_source(model, name):
    picture = pictures()[name]
    decoded = vqcodec.decode((FOLDER / model / f"{name}.vq2").read_bytes(), device="cpu")
    assert (decoded.size, decoded.mode) == (picture.size, picture.mode)
    assert peak_signal_noise_ratio(np.asarray(picture), np.asarray(decoded)) > 22
