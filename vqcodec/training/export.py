# SPDX-License-Identifier: Apache-2.0
"""From the checkpoints of a run to a weights file, and what its metadata says of the training."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from torch import Tensor

from vqcodec import weights
from vqcodec.codec import Codec, pack_model
from vqcodec.config import ModelConfig, VAEConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.nets.vae import VAE
from vqcodec.prior.export import to_integers
from vqcodec.training import checkpoint
from vqcodec.training.prior import Priors


def load_autoencoder(path: Path, rate_scale: float = 1.0) -> tuple[Autoencoder, dict[str, Any]]:
    """The averaged autoencoder of a checkpoint, its rate weights scaled, in evaluation mode; the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    model = Autoencoder(ModelConfig.from_dict(meta["model"]).autoencoder)
    model.load_state_dict(state)
    for quantizer in model.level_quantizers():
        quantizer.rate_weight.mul_(rate_scale)
    return model.eval(), meta


def load_priors(path: Path) -> tuple[Priors, dict[str, Any]]:
    """The averaged priors of a checkpoint, in evaluation mode, and the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    priors = Priors(ModelConfig.from_dict(meta["model"]))
    priors.load_state_dict(state)
    priors.eval()
    return priors, meta


def load_vae(path: Path) -> tuple[VAE, dict[str, Any]]:
    """The averaged VAE of a checkpoint, in evaluation mode, and the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    model = VAE(VAEConfig.from_dict(meta["model"]))
    model.load_state_dict(state)
    return model.eval(), meta


def write_codec(autoencoder: Path, prior: Path, target: Path) -> tuple[ModelConfig, Autoencoder, Priors]:
    """Write the weights file of a codec model and return what is in it. Checks everything that loading will check:
    raises ModelError or ExactnessError."""
    priors, meta = load_priors(prior)
    model, auto_meta = load_autoencoder(autoencoder, meta["rate_scale"])
    config = ModelConfig.from_dict(meta["model"])
    packed = pack_model(model, [to_integers(p) for p in priors.levels()])
    Codec(config, packed)
    training = {"autoencoder": _recipe(auto_meta), "prior": _recipe(meta), "commit": _commit()}
    weights.save(target, packed, {"model": config.to_dict(), "training": training})
    return config, model, priors


def write_vae(vae: Path, target: Path) -> VAE:
    """Write the weights file of a VAE, in half precision, and return what was rounded to it."""
    model, meta = load_vae(vae)
    tensors: dict[str, Tensor] = {f"vae.{name}": value.half() for name, value in model.state_dict().items()}
    training = {"vae": _recipe(meta), "commit": _commit()}
    weights.save(target, tensors, {"model": model.config.to_dict(), "training": training})
    return model


def _recipe(meta: dict[str, Any]) -> dict[str, Any]:
    """Settings, steps and minutes of one stage."""
    extra: dict[str, Any] = {k: meta[k] for k in ("special", "rate_scale") if k in meta}
    return {"settings": meta["train"], "steps": meta["step"], "minutes": meta["elapsed"] / 60, **extra}


def _commit() -> str:
    """The checked-out commit where this runs from a repository, else empty."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()
