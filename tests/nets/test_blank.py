# SPDX-License-Identifier: Apache-2.0
"""Loading a model neither draws random numbers nor imports PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys

import torch

from vqcodec.codec import Codec
from vqcodec.model import registry
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.blank import blank
from vqcodec.training.presets import VQVAE2_PRESETS

LOAD = "import sys; import vqcodec; vqcodec.load_model('vq2-light', 'cpu'); print(*sys.modules)"


def test_loading_draws_no_random_numbers(one_level_file):
    before = torch.get_rng_state()
    Codec.load(registry.find(one_level_file), "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_imports_no_compiler():
    result = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert not {"torch._dynamo", "torch._inductor"} & set(result.stdout.split())


def test_other_networks_have_initial_values():
    config = VQVAE2_PRESETS["tiny"].autoencoder
    with blank():
        shapes = {name: value.shape for name, value in Autoencoder(config).state_dict().items()}
    torch.manual_seed(0)
    network = Autoencoder(config)
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    torch.manual_seed(0)
    for name, value in Autoencoder(config).state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    assert float(network.stem.weight.detach().std()) > 0
