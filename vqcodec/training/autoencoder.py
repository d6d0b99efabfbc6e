# SPDX-License-Identifier: Apache-2.0
"""Training of VQ-VAE and VQ-VAE-2: mean square error, commitment, EMA codebooks, entropy-constrained assignment."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqcodec.config import ModelConfig
from vqcodec.images.types import Pixels
from vqcodec.model import lambdas
from vqcodec.nets import parallel
from vqcodec.nets.autoencoder import Autoencoder, Reconstruction
from vqcodec.nets.quality import MS_SSIM_MIN_CROP, ms_ssim, psnr
from vqcodec.nets.quantizer import Dropout
from vqcodec.prior.network import live_stages
from vqcodec.training import eye, linear
from vqcodec.training.crops import CropTask
from vqcodec.training.data import CropSampler, grid, to_device
from vqcodec.training.loop import Report
from vqcodec.training.metric import PIXEL_VARIANCE, Similarity, followed, squared_jacobians
from vqcodec.training.schedule import Clock, TrainConfig

METRIC_STEPS, METRIC_CROPS, METRIC_SHARE = 20, 4, 0.05  # how often, on how many crops, and how fast the metric follows
BALANCE = 0.35  # the error of a crop counts less by this power of its lambda: all rates count about the same
USUAL_ERROR = 0.02  # in units of PIXEL_VARIANCE, about 28.5 dB: where all shapes of the error have one slope
SHAPES = ("mse", "root", "log")
LINEAR_CROPS = 96  # that a linear start looks at
SHOWN = 6  # validation images in a grid


@dataclass(frozen=True)
class AutoencoderTraining:
    """commitment: beta of van den Oord et al. 2017. Theirs is 0.25 on a latent that can shrink; ours has unit variance.
    With several residual codebooks, detail that a stage can only partly capture would cost more commitment than it
    gains in distortion, and would be given up: 0.05 is better there. Much of it makes the encoder the decoder's inverse
    and pictures smooth, little of it keeps contrast at low rates. unquantized_steps: warm-up before the k-means
    init, from this many batches. ms_ssim: weight of 1 - MS-SSIM beside the mean square error; 0.3 makes it about half
    as large. ssimulacra2: weight of what is missing to a perfect SSIMULACRA2, in units of 100 points (see `eye`); at
    0.01 its gradient is about as large as that of the square error. shape: of the square error of a crop in the loss:
    itself (mse), its root, or its logarithm, which is what a mean PSNR counts. silent: share of the crops that get
    nothing of the finest level, so that the coarser ones learn to stand alone (quantiser dropout, Zeghidour et al.
    2021, section III.C). passed: share of those of the lowest lambda, falling to none in the middle of the range, whose
    finest latents reach the decoder as they are: without, the encoder makes up for what codes leave out, and is no
    inverse of the decoder where they leave out little. ramp: steps between which the lambda grows from nothing.
    prior_share: share of the crops of a batch that are chosen under the priors and train them, where those are trained
    too: they take more of the time than the autoencoder. enlarged: share of the crops that are smooth, see
    `CropSampler`. kept: leave the networks of an autoencoder that is trained with its priors as they are; codebooks and
    priors follow. beam: partial choices that are kept where codes are chosen under the priors; encoders keep 8 by
    default.

    Every crop draws its own weight of a bit from the model's range of lambdas, log-uniformly, so that one model serves
    them all. It begins to grow when every codebook has learned something worth its bits, and concerns all levels but
    the coarsest of several, that too if it may stop."""

    commitment: float = 0.25
    ms_ssim: float = 0.0
    ssimulacra2: float = 0.0
    shape: str = "mse"
    silent: float = 0.0
    passed: float = 0.0
    unquantized_steps: int = 150
    kmeans_batches: int = 24
    ramp: tuple[int, int] = (300, 900)
    prior_share: float = 1.0
    enlarged: float = 0.0
    kept: bool = False
    beam: int = 1

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"the shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")


@dataclass(frozen=True)
class Validation:
    """psnr: dB, mean over images. order0: entropy of each codebook's indices, by level, in bits per index; order0_bpp:
    the same in bits per pixel (estimates, no file). usage: share of codes used, by level and codebook; perplexity
    likewise."""

    psnr: float
    order0_bpp: float
    order0: list[list[float]]
    usage: list[list[float]]
    perplexity: list[list[float]]

    def values(self) -> dict[str, Any]:
        """Return scalars for the log. Bits per dim are bits per pixel over the three channels."""
        nats = [[bits * math.log(2) for bits in row] for row in self.order0]
        return {
            "val/psnr": self.psnr,
            "val/order0_bits_per_pixel": self.order0_bpp,
            "val/order0_bits_per_dim": self.order0_bpp / 3,
            "val/order0_bits_per_index": self.order0,
            "val/order0_nats_per_index": nats,
            "val/usage": self.usage,
            "val/perplexity": self.perplexity,
        }


@torch.inference_mode()
def validate(model: Autoencoder, images: Sequence[Pixels], device: str) -> Validation:
    """Reconstruct whole images, cropped to multiples of the coarsest stride, and count the codes. Leaves the model in
    evaluation mode.

    Args:
        model: the autoencoder.
        images: uint8 [H, W, 3] each.
        device: where the model is.
    """
    model.eval()
    counts = [torch.zeros(level.maps, level.codes, dtype=torch.int64) for level in model.config.levels]
    psnrs, pixels = [], 0
    for array in images:
        image = to_device(array, model.config.coarsest, device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            result = model(image)
        psnrs.append(psnr(result.image.float() * 255, image * 255))
        pixels += image.shape[2] * image.shape[3]
        for count, maps, level in zip(counts, result.indices, model.config.levels, strict=True):
            live = live_stages(maps.flatten(2), level)[0]
            for stage in range(level.stages):
                where = level.stage_maps(stage)
                for row, index in zip(count[where], maps[0, where].flatten(1), strict=True):
                    row += torch.bincount(index[live[stage]].cpu(), minlength=len(row))
    order0, usage, bits = [], [], 0.0
    for count in counts:
        probabilities = count / count.sum(1, keepdim=True).clamp(min=1)
        entropy = -(probabilities * probabilities.clamp(min=1e-12).log2()).sum(1)
        bits += float((entropy * count.sum(1)).sum())
        order0.append(entropy.tolist())
        usage.append((count > 0).float().mean(1).tolist())
    perplexity = [[2**e for e in row] for row in order0]
    return Validation(sum(psnrs) / len(psnrs), bits / pixels, order0, usage, perplexity)


class AutoencoderTask(CropTask):
    """Loss: MSE / PIXEL_VARIANCE + ms_ssim * (1 - MS-SSIM) + commitment * sum over levels of mean (z - sg(q))^2, z of
    unit variance."""

    name = "autoencoder"
    module: nn.Module
    model: ModelConfig

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        special: AutoencoderTraining,
        train: Sequence[Pixels],
        val: Sequence[Pixels],
    ) -> None:
        """train, val: uint8 [H, W, 3] each; the same on all ranks. Raises ValueError where MS-SSIM does not fit."""
        if special.ms_ssim and config.crop < MS_SSIM_MIN_CROP:
            raise ValueError(f"MS-SSIM needs crops of at least {MS_SSIM_MIN_CROP} pixels, not {config.crop}")
        torch.manual_seed(config.seed)
        self.model, self.special = model_config, special
        self.autoencoder = Autoencoder(model_config.autoencoder)
        super().__init__(self.wrapped(), config, train, val, config.crop)
        self.sampler.enlarged = special.enlarged
        self.ramp = 0.0
        low, high = model_config.lmbdas
        quantizers = self.autoencoder.level_quantizers()
        for quantizer in quantizers[1:] or quantizers:
            quantizer.rate_weight.fill_(math.sqrt(low * high))

    def wrapped(self) -> nn.Module:
        """Return what is trained: here the autoencoder alone."""
        return self.autoencoder

    def batch(self, config: TrainConfig) -> tuple[Tensor, Tensor]:
        """Draw crops, and the trade-off of each, float [N] in 0..1."""
        crops = self.crops(config)
        draws = torch.rand(config.batch, generator=self.generator)[parallel.rank_rows(config.batch)]
        return crops, draws.to(config.device)

    def dropout(self, tradeoffs: Tensor) -> Dropout | None:
        """Draw of which crops the finest level's quantiser does not do its work, by the shares asked for.

        Args:
            tradeoffs: of the crops, float [N] in 0..1.
        """
        shares = self.special.silent, self.special.passed * (1 - 2 * tradeoffs.cpu())
        if not self.special.silent and not self.special.passed:
            return None
        drawn = torch.zeros(2, len(self.model.autoencoder.levels), len(tradeoffs), dtype=torch.bool)
        for images, share in zip(drawn, shares, strict=True):
            images[-1] = torch.rand(len(tradeoffs), generator=self.generator) < share
        return Dropout(*drawn.to(tradeoffs.device))

    def _shaped(self, error: Tensor, importance: Tensor) -> Tensor:
        """The square error of every crop, float [N] in units of PIXEL_VARIANCE, as it counts in the loss. importance:
        float [N], of the crops."""
        if self.special.shape == "mse":
            return error * importance
        if self.special.shape == "root":
            return 2 * (USUAL_ERROR * error + 1e-8).sqrt() * importance.sqrt()
        return USUAL_ERROR * (error + 0.02 * USUAL_ERROR).log()

    def distortion(self, result: Reconstruction, image: Tensor, tradeoffs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss, but for the priors', and scalars for the log.

        Args:
            result: of the images.
            image: float [N, 3, H, W] in 0..1.
            tradeoffs: float [N] in 0..1.
        """
        low, high = self.model.lmbdas
        importance = (high / low if low else 1.0) ** (BALANCE * (0.5 - tradeoffs))
        decoded = result.image.float()
        error = (decoded - image).square().mean((1, 2, 3))
        commitments = torch.stack(result.commitments)
        losses = self.special.commitment * commitments.sum(0) * importance
        scalars = {"train/psnr": -10 * error.detach().mean().log10(), "train/residual": commitments.mean(1)}
        if self.special.ms_ssim:
            similarity = ms_ssim(decoded, image)
            losses = losses + self.special.ms_ssim * (1 - similarity) * importance
            scalars["train/ms_ssim"] = similarity.detach().mean()
        if self.special.ssimulacra2:
            distance = eye.distance(decoded, image)
            losses = losses + self.special.ssimulacra2 * distance * importance
            scalars["train/ssimulacra2"] = 100 - 100 * distance.detach().mean()
        return (losses + self._shaped(error / PIXEL_VARIANCE, importance)).mean(), scalars

    def loss(self, network: nn.Module, batch: Any, config: TrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch: see `Task.loss`.

        Args:
            network: `module`, or what wraps it.
            batch: from `batch`.
            config: of the run.
        """
        image, tradeoffs = batch
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            weights = self.ramp * lambdas.at(self.model, tradeoffs)
            result = network(image, weights, None, tradeoffs, self.dropout(tradeoffs))
        return self.distortion(result, image, tradeoffs)

    def before(self, step: int, clock: Clock, config: TrainConfig) -> bool:
        """Turn the quantisers on after the warm-up, codebooks from k-means, and let the metric follow.

        Args:
            step: number of the step, from 0.
            clock: of the run.
            config: of the run.

        Returns: whether weights changed at one stroke.
        """
        if step == 0 and self.model.autoencoder.norm == "level" and not self.model.autoencoder.overlap:
            linear.start(self.autoencoder, self.crops(dataclasses.replace(config, batch=LINEAR_CROPS)))
            return True
        due = step == self.special.unquantized_steps
        first, last = self.special.ramp
        self.ramp = min(1.0, max(0.0, (step - first) / max(1, last - first)))
        for quantizer in self.autoencoder.level_quantizers():
            quantizer.enabled = step > self.special.unquantized_steps
        if due:
            initialize_codebooks(self.autoencoder, self.sampler, config, self.special.kmeans_batches)
        if step >= self.special.unquantized_steps and (due or step % METRIC_STEPS == 0):
            self.measure_metric(config, 1.0 if due else METRIC_SHARE)
        return due

    def measure_metric(self, config: TrainConfig, weight: float) -> None:
        """Let the metric of levels that may stop follow the decoder.

        Args:
            config: of the run.
            weight: of what is measured now, 0 to 1.
        """
        quantizers = self.autoencoder.level_quantizers()
        if not any(quantizer.level.stop for quantizer in quantizers):
            return
        image, tradeoffs = self.batch(dataclasses.replace(config, batch=METRIC_CROPS * parallel.world()))
        self.autoencoder.eval()
        with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
            with torch.no_grad():
                weights = self.ramp * lambdas.at(self.model, tradeoffs)
                indices = self.autoencoder.encode(image, weights, None, tradeoffs)
            similarity = Similarity(image, self.special.ms_ssim) if self.special.ms_ssim else None
            squares = squared_jacobians(self.autoencoder, indices, tradeoffs, similarity=similarity)
        self.autoencoder.train()
        for quantizer, square in zip(quantizers, squares, strict=True):
            mean = parallel.total(square) / parallel.world()
            quantizer.metric.copy_(followed(quantizer.metric, mean, weight))

    def validate(self, config: TrainConfig, images: bool) -> Report:
        """Measure at both ends of the range of lambdas and in its middle.

        Args:
            config: of the run.
            images: whether grids are wanted.
        """
        quantizers = self.autoencoder.level_quantizers()
        lmbdas = [quantizer.rate_weight.clone() for quantizer in quantizers]
        low, high = self.model.lmbdas
        steps = {"": 1.0} if low == high else {"/low": math.sqrt(low / high), "/high": math.sqrt(high / low), "": 1.0}
        results: dict[str, Any] = {}
        for name, factor in steps.items():
            for quantizer, weight in zip(quantizers, lmbdas, strict=True):
                quantizer.rate_weight.copy_(weight * factor)
            values = validate(self.autoencoder, self.val, config.device).values()
            results |= {f"{key}{name}": value for key, value in values.items()}
        return Report(results, images={"val/reconstruction": self._pairs(config)} if images else {})

    def _pairs(self, config: TrainConfig) -> Tensor:
        """Originals above their reconstructions, [3, H, W]."""
        side = min(256, *(min(image.shape[:2]) for image in self.val[:SHOWN]))
        multiple = self.model.autoencoder.coarsest
        crops = torch.cat([to_device(i[:side, :side], multiple, config.device) for i in self.val[:SHOWN]])
        return grid(torch.cat([crops, self.autoencoder(crops).image.float()]), len(crops))


@torch.no_grad()
def initialize_codebooks(model: Autoencoder, sampler: CropSampler, config: TrainConfig, batches: int) -> None:
    """Start the codebooks of every level by k-means of the encoder's outputs, coarsest first: finer levels see the
    quantised coarser ones.

    Args:
        model: the autoencoder.
        sampler: of the crops.
        config: of the run.
        batches: of crops to cluster.
    """
    for i, quantizer in enumerate(model.level_quantizers()):
        vectors = []
        for _ in range(batches):
            with torch.autocast(config.device_type, torch.bfloat16, enabled=config.bf16):
                z = model.latents(sampler.batch(config.batch).to(config.device), i)
            vectors.append(z.float().reshape(-1, z.shape[-1]))
        quantizer.initialize(torch.cat(vectors))
        quantizer.enabled = True
