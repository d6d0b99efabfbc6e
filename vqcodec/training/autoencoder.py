# SPDX-License-Identifier: Apache-2.0
"""Training of the autoencoder: mean square error, commitment, EMA codebooks, entropy-constrained assignment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqcodec.config import ModelConfig
from vqcodec.nets.autoencoder import Autoencoder
from vqcodec.training import checkpoint
from vqcodec.training.data import CropSampler, Pixels
from vqcodec.training.muon import Muon
from vqcodec.training.schedule import Clock, Log, TrainConfig

PIXEL_VARIANCE = 0.07  # of photographs in 0..1: the distortion is measured in units of it
# beta of van den Oord et al. 2017. Theirs is 0.25 on a latent that can shrink; ours has unit variance, where detail
# that a stage can only partly capture would cost more commitment than it gains in distortion, and would be given up.
COMMITMENT = 0.05
RATE_START, RATE_FULL = 0.25, 0.6  # progress at which the rate weight begins to grow, and is all there


@dataclass(frozen=True)
class AutoencoderTraining:
    """rate: per level, the weight of a bit in the choice of codes, in units of the level's mean residual energy.
    It grows from nothing between RATE_START and RATE_FULL, when every codebook has learned something worth its bits.
    unquantized_steps: warm-up before the k-means init, from this many batches."""

    rate: tuple[float, ...]
    unquantized_steps: int = 150
    kmeans_batches: int = 24


@dataclass(frozen=True)
class Validation:
    """psnr: dB, mean over images. usage: share of codes used, per codebook; perplexity likewise. order0_bpp: bits per
    pixel of the indices under their own order-0 entropy (an estimate, no file)."""

    psnr: float
    order0_bpp: float
    usage: list[float]
    perplexity: list[float]


@torch.inference_mode()
def validate(model: Autoencoder, images: Sequence[Pixels], device: str) -> Validation:
    """Reconstruct whole images, cropped to multiples of the coarsest stride, and count the codes."""
    model.eval()
    multiple = model.config.coarsest
    counts = [torch.zeros(level.codebooks, level.codes, dtype=torch.int64) for level in model.config.levels]
    psnrs, pixels = [], 0
    for array in images:
        h, w = (n - n % multiple for n in array.shape[:2])
        image = torch.from_numpy(array[:h, :w].copy()).permute(2, 0, 1)[None].to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            result = model(image.float() / 255)
        decoded = (result.image.float() * 255).round().clamp(0, 255)
        error = (decoded - image.float()).square().mean().item()
        psnrs.append(10 * math.log10(255**2 / max(error, 1e-9)))
        pixels += h * w
        for count, maps in zip(counts, result.indices, strict=True):
            for stage, index in enumerate(maps[0].cpu()):
                count[stage] += torch.bincount(index.flatten(), minlength=count.shape[1])
    model.train()
    entropies, usage, bits = [], [], 0.0
    for count in counts:
        share = count / count.sum(1, keepdim=True)
        entropy = -(share * share.clamp(min=1e-12).log2()).sum(1)
        bits += float((entropy * count.sum(1)).sum())
        entropies += entropy.tolist()
        usage += (count > 0).float().mean(1).tolist()
    return Validation(sum(psnrs) / len(psnrs), bits / pixels, usage, [2**e for e in entropies])


@torch.no_grad()
def initialize_codebooks(model: Autoencoder, sampler: CropSampler, config: TrainConfig, batches: int) -> None:
    """k-means of every level's encoder outputs, coarsest first: finer levels see the quantised coarser ones."""
    for i, quantizer in enumerate(model.level_quantizers()):
        vectors = []
        for _ in range(batches):
            with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
                z = model.latents(sampler.batch(config.batch).to(config.device), i)
            vectors.append(z.float().reshape(-1, z.shape[-1]))
        quantizer.initialize(torch.cat(vectors))
        quantizer.enabled = True


@torch.no_grad()
def update_rate_weights(model: Autoencoder, commitments: Sequence[Tensor], rate: Sequence[float], ramp: float) -> None:
    """Let lambda follow rate * mean residual energy per vector (a moving average, so that it is steady)."""
    for quantizer, commitment, weight, level in zip(
        model.level_quantizers(), commitments, rate, model.config.levels, strict=True
    ):
        target = weight * ramp * commitment.detach() * level.dim
        quantizer.rate_weight.lerp_(target, 0.02)


def train_autoencoder(
    model_config: ModelConfig,
    config: TrainConfig,
    special: AutoencoderTraining,
    train: Sequence[Pixels],
    val: Sequence[Pixels],
    out: Path,
) -> Autoencoder:
    """Train, or go on from `out/autoencoder.ckpt.safetensors`. Writes checkpoints and `log.jsonl` into `out`.

    Loss: MSE / PIXEL_VARIANCE + COMMITMENT * sum over levels of mean (z - sg(q))^2, z of unit variance.
    Raises FloatingPointError when the loss is not finite; the last checkpoint stays.
    """
    torch.manual_seed(config.seed)
    model = Autoencoder(model_config.autoencoder).to(config.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = Muon(model, config.learning_rate, config.weight_decay)
    sampler = CropSampler(train, config.crop, config.seed)
    generators = {"sampler": sampler.generator}
    path = out / "autoencoder.ckpt.safetensors"
    step, elapsed = 0, 0.0
    if path.exists():
        meta = checkpoint.load(path, model, optimizer, generators)
        step, elapsed = meta["step"], meta["elapsed"]
    for quantizer in model.level_quantizers():
        quantizer.enabled = step > special.unquantized_steps
    clock, log = Clock(config, elapsed), Log(out / "log.jsonl")

    def save() -> None:
        meta = {"step": step, "elapsed": clock.elapsed, "model": model_config.to_dict()}
        meta["train"] = dataclasses.asdict(config) | dataclasses.asdict(special)
        checkpoint.save(path, model, optimizer, generators, meta)

    model.train()
    with clock:
        while clock.running(step):
            if step == special.unquantized_steps:
                initialize_codebooks(model, sampler, config, special.kmeans_batches)
            for group in optimizer.param_groups:
                group["lr"] = clock.learning_rate(step)
            image = sampler.batch(config.batch).to(config.device, memory_format=torch.channels_last)
            mse, commitments = training_step(model, optimizer, image, config)
            if step > special.unquantized_steps:
                ramp = min(1.0, max(0.0, (clock.progress(step) - RATE_START) / (RATE_FULL - RATE_START)))
                update_rate_weights(model, commitments, special.rate, ramp)
            step += 1
            if step % config.log_every == 0:
                residual = [float(f"{c.item():.4g}") for c in commitments]
                log.write(
                    step=step,
                    minutes=clock.elapsed / 60,
                    psnr=-10 * math.log10(mse),
                    residual=residual,
                    lr=optimizer.param_groups[0]["lr"],
                )
            if step % config.validate_every == 0:
                save()
                report = dataclasses.asdict(validate(model, val, config.device))
                log.write(step=step, **{f"val_{k}": v for k, v in _short(report).items()})
        save()
    return model


def training_step(
    model: Autoencoder, optimizer: torch.optim.Optimizer, image: Tensor, config: TrainConfig
) -> tuple[float, list[Tensor]]:
    """One update. image: float [N, 3, H, W] in 0..1. Returns the mean square error and the levels' commitments."""
    with torch.autocast(config.device, torch.bfloat16, enabled=config.bf16):
        result = model(image)
    distortion = (result.image.float() - image).square().mean()
    loss = distortion / PIXEL_VARIANCE + COMMITMENT * torch.stack(result.commitments).sum()
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"the loss is {loss.item()}; the last checkpoint is kept")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return distortion.item(), result.commitments


def _short(report: dict[str, float | list[float]]) -> dict[str, float | list[float]]:
    return {k: [float(f"{x:.4g}") for x in v] if isinstance(v, list) else v for k, v in report.items()}
