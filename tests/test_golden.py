# SPDX-License-Identifier: Apache-2.0
"""Files written once must decode to the same indices for ever, here as elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

import vqcodec
from vqcodec import container

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from golden import FOLDER, decoded_indices, indices_hash, pictures

GOLDEN = json.loads((FOLDER / "golden.json").read_text())


def test_there_is_a_hash_for_every_file():
    assert sorted(GOLDEN["indices"]) == sorted(path.stem for path in FOLDER.glob("*.vq2")) == sorted(pictures())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", sorted(GOLDEN["indices"]))
def test_indices_have_not_changed(shipped, name, threads):
    torch.set_num_threads(threads)
    file = (FOLDER / f"{name}.vq2").read_bytes()
    assert container.read_header(file).model.hex() == GOLDEN["identity"] == shipped.identity.hex()
    indices = decoded_indices(shipped, file)
    assert indices_hash(indices) == GOLDEN["indices"][name]
    # and the encoder's probabilities give the very same bytes
    header = container.read_header(file)
    assert tuple(shipped.compress(indices, header.width, header.height)) == container.unpack(file).streams


@pytest.mark.parametrize("name", sorted(GOLDEN["indices"]))
def test_pictures_look_like_their_source(name):
    picture = pictures()[name]
    decoded = vqcodec.decode((FOLDER / f"{name}.vq2").read_bytes(), device="cpu")
    assert (decoded.size, decoded.mode) == (picture.size, picture.mode)
    assert peak_signal_noise_ratio(np.asarray(picture), np.asarray(decoded)) > 22
