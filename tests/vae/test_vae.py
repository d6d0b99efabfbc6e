# SPDX-License-Identifier: Apache-2.0
"""The VAE's bound against other ways to compute it, and what the model does for users."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributions

from vqcodec.codec import Codec
from vqcodec.config import VAEConfig
from vqcodec.errors import ModelError
from vqcodec.model import registry, weights
from vqcodec.training.presets import VAE_PRESETS
from vqcodec.vae.model import VAEModel, mean_figures
from vqcodec.vae.network import VAE, Gaussian, Logistic


def gaussian(seed: int = 0) -> Gaussian:
    torch.manual_seed(seed)
    return Gaussian(torch.randn(3, 4, 2, 5), torch.randn(3, 4, 2, 5))


def network(seed: int = 0) -> VAE:
    """Untrained, with noise on every weight, so that posterior and scale depend on the image."""
    torch.manual_seed(seed)
    model = VAE(VAE_PRESETS["tiny"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture
def model(tmp_path) -> VAEModel:
    vae = network()
    tensors = {f"vae.{k}": v.half() for k, v in vae.state_dict().items()}
    weights.save(tmp_path / "small-vae.safetensors", tensors, {"model": vae.config.to_dict()})
    return VAEModel.load(registry.find(tmp_path / "small-vae.safetensors"))


def test_kl_equals_torch_distributions():
    q = gaussian()
    normal = distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
    expected = distributions.kl_divergence(normal, distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(q.kl(), expected)
    assert float(Gaussian(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)).kl()) == 0


def test_density_equals_torch_distributions():
    q = gaussian()
    z = torch.randn(3, 4, 2, 5)
    normal = distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
    torch.testing.assert_close(q.log_density(z), normal.log_prob(z).sum((1, 2, 3)))


@pytest.mark.parametrize("mean", [-30.0, 0.0, 0.3, 127.5, 254.0, 255.0, 300.0])
@pytest.mark.parametrize("log_scale", [-3.0, 0.0, 2.0, 5.0])
def test_the_likelihood_of_all_256_values_sums_to_one(mean, log_scale):
    values = torch.arange(256.0)
    nats = Logistic(torch.tensor(mean), torch.tensor(log_scale)).log_likelihood(values)
    assert nats.isfinite().all()
    assert nats.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    if log_scale <= 2:  # wider than that, the open ends hold more than the middle
        assert abs(int(nats.argmax()) - min(255, max(0, mean))) <= 1


def test_the_likelihood_is_the_difference_of_the_cumulative_distribution():
    mean, scale = 100.3, 4.0
    values = torch.arange(256.0)
    likelihood = (
        Logistic(torch.tensor(mean), torch.tensor(math.log(scale))).log_likelihood(values).double().exp().numpy()
    )
    edges = (np.arange(257) - 0.5 - mean) / scale
    cumulative = 1 / (1 + np.exp(-edges))
    cumulative[0], cumulative[-1] = 0, 1
    np.testing.assert_allclose(likelihood, np.diff(cumulative), rtol=1e-4, atol=1e-9)


def test_reparameterised_gradients_equal_finite_differences():
    """Of a function of z = mu + sigma * eps with the same eps, in both parameters."""

    def objective(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return Gaussian(mean, log_variance).sample().pow(3).sum()

    q = gaussian()
    parameters = [part.double().requires_grad_(True) for part in q]
    objective(*parameters).backward()
    for which, parameter in enumerate(parameters):
        for index in ((0, 0, 0, 0), (2, 3, 1, 4)):
            step = torch.zeros_like(parameter)
            step[index] = 1e-5
            moved = [
                objective(*(p.detach() + (sign * step if i == which else 0) for i, p in enumerate(parameters)))
                for sign in (1, -1)
            ]
            assert parameter.grad[index].item() == pytest.approx((moved[0] - moved[1]).item() / 2e-5, rel=1e-5)
    assert torch.autograd.gradcheck(objective, parameters)


def test_the_bound_is_reconstruction_minus_kl_of_one_draw():
    vae = network()
    image = torch.randint(0, 256, (2, 3, 16, 24)) / 255
    with torch.inference_mode():
        torch.manual_seed(5)
        bound = vae(image)
        torch.manual_seed(5)
        posterior = vae.encode(image)
        log_p = vae.decode(posterior.sample()).log_likelihood(image * 255).sum((1, 2, 3))
    torch.testing.assert_close(bound.reconstruction, log_p, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(bound.kl, posterior.kl())
    expected = (bound.kl - bound.reconstruction) / (3 * 16 * 24) / math.log(2)
    torch.testing.assert_close(bound.bits_per_dim(3 * 16 * 24), expected)


def test_the_importance_weighted_bound_is_the_elbo_for_one_draw_and_tighter_for_more():
    vae = network()
    image = torch.randint(0, 256, (1, 3, 8, 8)).expand(400, -1, -1, -1) / 255
    with torch.inference_mode():
        torch.manual_seed(0)
        bound = vae(image)
        elbo = bound.reconstruction - bound.kl
        one, many = (vae.importance_weighted(image, k) for k in (1, 20))
    error = (elbo.std() / 20 + one.std() / 20).item()
    assert one.mean().item() == pytest.approx(elbo.mean().item(), abs=4 * error)
    assert many.mean() > one.mean() + one.std()


def test_shapes_and_sizes():
    vae = network()
    posterior = vae.encode(torch.rand(2, 3, 8, 12))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 8, 2, 3)
    assert vae.decode(posterior.mean).mean.shape == (2, 3, 8, 12)
    with pytest.raises(ValueError, match="multiples of 4"):
        vae.encode(torch.rand(1, 3, 10, 12))
    assert VAEConfig.from_dict(vae.config.to_dict()) == vae.config


def test_samples_repeat_with_the_seed_and_have_any_size(model):
    a, b, c = (np.asarray(model.sample(37, 21, seed=s)) for s in (1, 1, 2))
    assert a.shape == (21, 37, 3)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    calm = np.asarray(model.sample(37, 21, seed=1, temperature=1e-6), np.float64)
    assert np.abs(calm - np.asarray(model.sample(37, 21, seed=2, temperature=1e-6))).max() <= 1
    with pytest.raises(ValueError, match="positive"):
        model.sample(0, 8)


def test_interpolation_runs_from_one_reconstruction_to_the_other(model, photo):
    a, b = photo[:30, :40], photo[100:130, 200:240]
    pictures = model.interpolate(a, b, 5)
    assert len(pictures) == 5
    for end, picture in ((a, pictures[0]), (b, pictures[-1])):
        difference = np.abs(picture.astype(int) - model.reconstruct(end).astype(int))
        assert difference.max() <= 1
    assert not np.array_equal(pictures[2], pictures[0])
    with pytest.raises(ValueError, match="one size"):
        model.interpolate(a, photo)


def test_figures_add_up(model, photo):
    measured = model.figures(photo[:40, :50], samples=5, seed=1)
    assert measured.elbo == pytest.approx(measured.reconstruction + measured.kl)
    assert measured.importance_weighted is not None
    assert measured.importance_weighted == pytest.approx(measured.elbo, rel=0.02)
    again = model.figures(photo[:40, :50], seed=1)
    assert again.elbo == measured.elbo
    assert again.importance_weighted is None
    decoded = model.reconstruct(photo[:40, :48]).astype(np.float64)
    error = np.square(decoded - photo[:40, :48]).mean()
    assert measured.psnr == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert mean_figures([measured, again]).elbo == pytest.approx(measured.elbo)
    with pytest.raises(ValueError, match="at least"):
        model.figures(photo[:3, :3])


def test_a_codec_model_is_no_vae_and_the_other_way_round(model, tmp_path, tiny_models):
    with pytest.raises(ModelError, match="no VAE"):
        VAEModel.load(registry.find(tiny_models / "tiny.safetensors"))
    with pytest.raises(ModelError, match="VAE"):
        Codec.load(registry.find(tmp_path / "small-vae.safetensors"), "cpu")
