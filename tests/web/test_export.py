# SPDX-License-Identifier: Apache-2.0
"""What browsers load of a model: as large as it may be, named by its identity, and with the same numbers."""

from __future__ import annotations

import gzip
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load

from vqcodec.model import loading, registry

pytest.importorskip("onnx")

import onnx
from onnx import numpy_helper

from vqcodec.web import export as exporting

MOST = 12_000_000  # bytes of a model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("web")
    return out, exporting.export([registry.find("vq2-light")], out)


def test_the_manifest_names_all_files(exported):
    out, manifest = exported
    assert json.loads((out / exporting.MANIFEST).read_text()) == manifest
    (model,) = manifest["models"]
    assert model["identity"] == registry.find("vq2-light").identity.hex()
    assert [file["role"] for file in model["files"]] == ["priors", "level0", "level1", "level2"]
    for file in model["files"]:
        data = (out / file["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert sum(file["bytes"] for file in model["files"]) <= MOST


def test_priors_are_the_model_s_own(exported):
    out, manifest = exported
    packed = (out / manifest["models"][0]["files"][0]["file"]).read_bytes()
    tensors = load(gzip.decompress(packed))
    original = loading.read_codec(registry.find("vq2-light").path).tensors
    names = {name for name in original if name.startswith("prior.")}
    assert names
    assert names == {name for name in tensors if name.startswith("prior.")}
    for name in names:
        assert tensors[name].dtype == original[name].numpy().dtype
        assert np.array_equal(tensors[name], original[name].numpy())
    assert {"readout.0", "readout.1"} & tensors.keys()


def test_graphs_hold_the_decoder_and_no_encoder(exported):
    out, manifest = exported
    seen = set()
    original = loading.read_codec(registry.find("vq2-light").path).tensors
    for file in manifest["models"][0]["files"][1:]:
        graph = onnx.load_from_string(gzip.decompress((out / file["file"]).read_bytes())).graph
        for weight in graph.initializer:
            if weight.name.startswith("constant"):
                continue
            seen.add(weight.name)
            expected = original[f"autoencoder.{weight.name}"].half().numpy()
            assert np.array_equal(numpy_helper.to_array(weight), expected)
    wanted = ("from_latent.", "decode_blocks.", "up.", "head.")
    names = {name.removeprefix("autoencoder.") for name in original}
    assert seen == {name for name in names if name.startswith(wanted)}


def test_two_exports_are_equal(exported, tmp_path):
    _, manifest = exported
    assert exporting.export([registry.find("vq2-light")], tmp_path) == manifest
