# SPDX-License-Identifier: Apache-2.0
"""From the checkpoints of a run to a weights file, and what its metadata says of the training."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqcodec.config import ModelConfig, VAEConfig
from vqcodec.model import loading, preview, readouts, registry, weights
from vqcodec.model.loading import pack_model
from vqcodec.model.model import Model
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.prior.export import from_integers, to_integers
from vqcodec.training import checkpoint
from vqcodec.training.average import lerp
from vqcodec.training.prior import Priors
from vqcodec.vae.network import VAE


def latest(out: Path) -> Path:
    """Find the checkpoint of a run that holds its autoencoder: that of the joint training if there was one."""
    joint = out / "joint.ckpt.safetensors"
    return joint if joint.exists() else out / "autoencoder.ckpt.safetensors"


def load_autoencoder(path: Path) -> tuple[Autoencoder, dict[str, Any]]:
    """Load the averaged autoencoder of a checkpoint (see `latest`), in evaluation mode; the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    model = Autoencoder(ModelConfig.from_dict(meta["model"]).autoencoder)
    model.load_state_dict(_part_of(state, meta, "autoencoder"))
    return model.eval(), meta


def _part_of(state: dict[str, Tensor], meta: dict[str, Any], name: str) -> dict[str, Tensor]:
    """The part of a joint checkpoint's state, or the whole state of another."""
    return weights.part(state, name) if meta["name"] == "joint" else state


def load_model_file(path: Path) -> tuple[ModelConfig, Autoencoder, Priors]:
    """Load what the weights file of a codec model holds, to be trained further. Raises ModelError on a foreign file."""
    file = loading.read_codec(path)
    config, tensors = file.config, file.tensors
    model, priors = Autoencoder(config.autoencoder), Priors(config)
    loading.fit(model, weights.part(tensors, "autoencoder"), "autoencoder")
    for i, prior in enumerate(priors.levels()):
        from_integers(prior, weights.part(tensors, f"prior.{i}"))
    return config, model, priors


@torch.no_grad()
def start_from(model: Autoencoder, path: Path) -> str:
    """Take over the tensors of a weights file whose names and shapes agree, but for codebooks: they begin with k-means.

    Args:
        model: is changed.
        path: of the weights file.

    Returns: what was taken, in words.

    Raises: ModelError on a foreign file.
    """
    tensors = weights.part(weights.load(path)[0], "autoencoder")
    state = model.state_dict()
    taken = {k: v for k, v in tensors.items() if k in state and state[k].shape == v.shape and "quantizers" not in k}
    model.load_state_dict(weights.single(taken), strict=False)
    return f"{path.name}: {len(taken)} of {len(state)} tensors"


def load_priors(path: Path) -> tuple[Priors, dict[str, Any]]:
    """Load the averaged priors of a checkpoint, in evaluation mode, and the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    priors = Priors(ModelConfig.from_dict(meta["model"]))
    priors.load_state_dict(_part_of(state, meta, "priors"))
    priors.eval()
    return priors, meta


def load_vae(path: Path) -> tuple[VAE, dict[str, Any]]:
    """Load the averaged VAE of a checkpoint, in evaluation mode, and the checkpoint's meta."""
    state, meta = checkpoint.averaged(path)
    model = VAE(VAEConfig.from_dict(meta["model"]))
    model.load_state_dict(state)
    return model.eval(), meta


def write_codec(out: Path, target: Path) -> tuple[ModelConfig, Autoencoder, Priors]:
    """Write the weights file of a run's codec model; check everything that loading will check.

    Args:
        out: folder of the run.
        target: file to write.

    Returns: what is in the file.

    Raises: ModelError or ExactnessError if it would not load.
    """
    model, _ = load_autoencoder(latest(out))
    best = out / "prior.best.safetensors"  # trained on, after both together, or not
    priors, meta = load_priors(best if best.exists() else latest(out))
    config = ModelConfig.from_dict(meta["model"])
    before = {name: out / f"{name}.ckpt.safetensors" for name in ("autoencoder", "joint")}
    earlier = {name: _recipe(weights.load_meta(path)) for name, path in before.items() if path.exists()}
    _write(target, config, model, priors, {**earlier, meta["name"]: _recipe(meta), "commit": _commit()})
    return config, model, priors


def write_mean(first: Path, second: Path, share: float, target: Path) -> None:
    """Write the weighted mean of two models, tensor by tensor: of trained weights and of what a short run made of them
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1). Weights that lie far apart lose.

    Args:
        first: weights file of a codec model.
        second: one of the same configuration.
        share: of the second, 0 to 1.
        target: file to write.

    Raises: ModelError on foreign files, ValueError on two configurations or another share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share must be 0 to 1, not {share:g}")
    config, model, priors = load_model_file(first)
    other, added, added_priors = load_model_file(second)
    if other != config:
        raise ValueError(f"{first.name} and {second.name} differ in their configuration")
    lerp(model.state_dict(), added.state_dict(), share)
    lerp(priors.state_dict(), added_priors.state_dict(), share)
    identities = [registry.find(path).identity.hex() for path in (first, second)]
    _write(target, config, model, priors, {"mean": identities, "share": share, "commit": _commit()})


def _write(target: Path, config: ModelConfig, model: Autoencoder, priors: Priors, training: Mapping[str, Any]) -> None:
    """The weights file and its previews, of what would load. training: what the metadata say of it."""
    packed = pack_model(model, [to_integers(p) for p in priors.levels()])
    Model(config, packed)
    weights.save(target, packed, {"model": config.to_dict(), "training": training})
    write_previews(target)


def write_previews(path: Path) -> Path:
    """Write the file that makes previews of a model quick, beside its weights file, and return its path."""
    model = Model.load(registry.find(path), "cpu")
    return readouts.save(path, model.identity, preview.fit_all(model))


def write_vae(vae: Path, target: Path) -> VAE:
    """Write the weights file of a VAE, in half precision.

    Args:
        vae: checkpoint of the run.
        target: file to write.

    Returns: the model as rounded.
    """
    model, meta = load_vae(vae)
    tensors: dict[str, Tensor] = {f"vae.{name}": value.half() for name, value in model.state_dict().items()}
    training = {"vae": _recipe(meta), "commit": _commit()}
    weights.save(target, tensors, {"model": model.config.to_dict(), "training": training})
    return model


def _recipe(meta: dict[str, Any]) -> dict[str, Any]:
    """Settings, steps and minutes of one run."""
    extra: dict[str, Any] = {k: meta[k] for k in ("special",) if k in meta}
    return {"settings": meta["train"], "steps": meta["step"], "minutes": meta["elapsed"] / 60, **extra}


def _commit() -> str:
    """The checked-out commit where this runs from a repository, else empty."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return head.stdout.strip()
