"""Autoencoding: what is paid for an image, what is measured, samples, guards."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.deterministic import weights
from PIL import Image
from safetensors.numpy import save_file

from jaxvision import cli, models, pretrained, runs, tasks
from jaxvision.commands import features
from jaxvision.data.facts import Facts
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.interop import published as module
from jaxvision.interop import torch_weights
from jaxvision.interop.published import published
from jaxvision.interop.weight_files import file_in, read_state_dict
from jaxvision.losses import (
    bernoulli_nll,
    free_nats,
    gaussian_kl,
    gaussian_nll,
    laplace_nll,
    logit_laplace_nll,
    map_pixels,
    uniform_kl,
    unmap_pixels,
)
from jaxvision.metrics import add, compute
from jaxvision.metrics.codes import ActiveUnits, CodeUsage
from jaxvision.pretrained import Weights
from jaxvision.tasks import base, configuration
from jaxvision.tasks.autoencoding.quantized import Quantized
from jaxvision.tasks.autoencoding.task import Autoencoding
from jaxvision.tasks.autoencoding.tokens import Tokens
from jaxvision.tasks.autoencoding.variational import Variational
from jaxvision.tasks.sampling import Sampling, row_keys
from jaxvision.train import optimizer, run
from jaxvision.train import weights as weights_of
from jaxvision.train.step import Group, init_state, init_variables, make_train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NETWORKS = {
    "vector": ("ae_conv", {"size": 8, "widths": (4, 6), "latent": 3}),
    "posterior": ("vae_conv", {"size": 8, "widths": (4, 6), "latent": 3}),
    "codebook": ("vqvae_ema", {"hidden": 8, "residual": 4, "codes": 6, "width": 4, "decay": 0.9}),
    "tokens": ("dvae", {"groups": 1, "blocks": 1, "hidden": 8, "codes": 6, "width": 4}),
    "map": ("autoencoder_kl", {"widths": (4, 4), "depth": 1, "groups": 2, "size": (8, 12)}),
}


def configured(code="posterior", **keys):
    config = tasks.default_config("autoencoding")
    config.model.name, options = NETWORKS[code]
    config.model.options = options
    config.data.channels = 1
    config.data.mean, config.data.std = (0.5,), (0.5,)
    if code == "tokens":
        config.data.mean, config.data.std = (0.0,), (1.0,)
    for key, value in keys.items():
        config.autoencoding[key] = value
    return config


def task_of(code="posterior", **keys):
    config = configured(code, **keys)
    configuration.validate(config)
    return tasks.create(config, Facts())


def images(count=6, size=(8, 8)):
    return jnp.asarray(RNG.integers(0, 256, (count, *size, 1)), jnp.uint8)


def variables_of(task, size=(8, 8)):
    return jax.jit(lambda: init_variables(task, 0, base.image_spec((*size, 1))))()


def metrics_of(task, variables, batch):
    """The metrics of a batch, and the rows of its records."""
    sums, rows = jax.jit(task.evaluate)(variables, batch, KEY)
    return compute(jax.device_get(sums)), {k: np.asarray(v) for k, v in rows.items()}


# -- losses and metrics ------------------------------------------------------------------------


def test_nats_of_pixels():
    logits = jnp.asarray([[[0.0, 2.0], [-1.0, 30.0]]])
    pixels = jnp.asarray([[[0.5, 1.0], [0.25, 1.0]]])
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    expected = -(pixels * np.log(p) + (1 - pixels) * np.log1p(-p + 1e-30)).sum()
    np.testing.assert_allclose(bernoulli_nll(logits, pixels), [expected], 1e-5)
    mean, scale = jnp.asarray([[0.0, 1.0, 0.5]]), 0.25
    values = jnp.asarray([[0.5, 1.0, 0.25]])
    density = np.exp(-0.5 * (np.asarray(values - mean) / scale) ** 2) / scale / math.sqrt(2 * np.pi)
    found = gaussian_nll(mean, values, math.log(scale))
    np.testing.assert_allclose(found, [-np.log(density).sum()], 1e-5)


def test_nats_of_laplace_distributions():
    """Both are densities of pixels from 0 to 1; the second has no mass elsewhere."""
    values, scale = jnp.asarray([[0.5, 1.0, 0.25]]), 0.25
    found = laplace_nll(jnp.asarray([[0.0, 1.0, 0.5]]), values, math.log(scale))
    expected = np.abs(np.asarray([0.5, 0.0, -0.25])) / scale + np.log(2 * scale)
    np.testing.assert_allclose(found, [expected.sum()], 1e-5)
    pixels = jnp.linspace(0, 1, 20_001)
    mapped = map_pixels(pixels)
    assert (float(mapped[0]), float(mapped[-1])) == pytest.approx((0.1, 0.9))
    np.testing.assert_allclose(unmap_pixels(mapped), pixels, atol=1e-6)
    output = jnp.broadcast_to(jnp.asarray([0.4, -1.0]), (len(pixels), 1, 1, 2))
    density = np.exp(-np.asarray(logit_laplace_nll(output, pixels.reshape(-1, 1, 1, 1))))
    # The logits of 0.1 and 0.9 bound the Laplace distribution's mass.
    bound, width = np.log(9), np.exp(-1.0)
    outside = (np.exp((-bound - 0.4) / width) + np.exp((0.4 - bound) / width)) / 2
    assert np.trapezoid(density, pixels) == pytest.approx(1 - outside, rel=1e-4)


def test_divergence_from_the_uniform_distribution():
    logits = jnp.asarray([[[0.0, 0.0], [np.log(3.0), 0.0]], [[90.0, 0.0], [0.0, 90.0]]])
    once = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    np.testing.assert_allclose(uniform_kl(logits), [once, 2 * np.log(2)], 1e-5)


def test_divergence_from_the_prior():
    mean, variance = np.asarray([[0.0, 1.5]]), np.asarray([[1.0, 0.4]])
    found = gaussian_kl(jnp.asarray(mean, jnp.float32), jnp.log(jnp.asarray(variance, jnp.float32)))
    x = np.linspace(-12, 12, 200_001)
    q = np.exp(-0.5 * (x - 1.5) ** 2 / 0.4) / np.sqrt(2 * np.pi * 0.4)
    log_p = -0.5 * x**2 - 0.5 * np.log(2 * np.pi)
    expected = np.trapezoid(np.where(q > 0, q * (np.log(np.maximum(q, 1e-300)) - log_p), 0), x)
    np.testing.assert_allclose(found, [[0.0, expected]], 1e-5, 1e-6)
    # A vector at each place of a map: what belongs to one latent variable is added up.
    maps = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)), jnp.float32)
    each = gaussian_kl(maps, maps)
    np.testing.assert_allclose(
        each, sum(gaussian_kl(maps[:, i, j], maps[:, i, j]) for i in range(3) for j in range(4)),
        1e-5,
    )  # fmt: skip


def test_free_nats():
    kl = jnp.asarray([[0.2, 3.0], [0.6, 1.0], [9.0, 9.0]])
    mask = jnp.asarray([True, True, False])
    found, slope = jax.value_and_grad(lambda kl: free_nats(kl, mask, 0.5).value)(kl)
    assert float(found) == pytest.approx(0.5 + 2.0)  # means 0.4 and 2, of which 0.4 is free
    np.testing.assert_allclose(slope, [[0, 0.5], [0, 0.5], [0, 0]])


def test_how_many_codes_are_used():
    indices = jnp.asarray([[[0, 1], [1, 1]], [[3, 3], [3, 3]], [[2, 2], [2, 2]]])
    usage = CodeUsage.of(indices, jnp.asarray([True, True, False]), 5)
    np.testing.assert_array_equal(usage.counts, [1, 3, 0, 4, 0])
    share = np.array([1, 3, 4]) / 8
    found = usage.compute("usage")
    assert found["codebook_perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found["codebook_usage"] == pytest.approx(3 / 5)
    alone = CodeUsage.of(indices[1:2], jnp.ones(1, bool), 5).compute("")
    assert alone["codebook_perplexity"] == pytest.approx(1)
    both = compute({"usage": add(usage, usage)})
    assert both == pytest.approx(found)
    nothing = CodeUsage.of(indices, jnp.zeros(3, bool), 5).compute("")
    assert np.isnan(list(nothing.values())).all()


def test_how_many_latent_variables_say_something():
    kl = jnp.asarray([[0.02, 0.0, 5.0], [0.01, 0.0, 5.0], [9.0, 9.0, 9.0]])
    units = ActiveUnits.of(kl, jnp.asarray([True, True, False]))
    assert units.compute("active_units") == {"active_units": 2.0}
    nothing = ActiveUnits.of(kl, jnp.zeros(3, bool))
    assert np.isnan(nothing.compute("a")["a"])


# -- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "likelihood"),
    [
        ("vector", "gaussian"),
        ("posterior", "bernoulli"),
        ("codebook", "gaussian"),
        ("tokens", "laplace"),
    ],
)
def test_metrics_are_of_valid_images(code, likelihood):
    task = task_of(code, likelihood=likelihood, scale=0.3)
    variables, shown = variables_of(task), images()
    batch = {"image": shown, "valid": jnp.arange(6) < 5}
    found, rows = metrics_of(task, variables, batch)
    assert rows.keys() == {"real_pixels", "fake_pixels"}
    own = task.of_network(variables)
    normal = task.inputs.evaluate(shown)
    code_of = task.model.apply(own, normal, method="encode")
    pixels = np.asarray(shown, np.float64) / 255
    latent = code_of
    if code == "posterior":
        latent = code_of.mean
        expected = gaussian_kl(*code_of).sum(-1)[:5].mean()
        assert found["kl"] == pytest.approx(float(expected), rel=1e-5)
    elif code == "codebook":
        codes = task.model.apply(own, code_of, method="quantize")
        latent, counts = codes.vectors, np.bincount(np.asarray(codes.indices[:5]).ravel())
        assert found["kl"] == pytest.approx(4 * math.log(6))
        assert found["codebook_usage"] == pytest.approx((counts > 0).sum() / 6)
    elif code == "tokens":
        tokens = task.model.apply(own, shown / 255, method="tokens")
        latent = jax.nn.one_hot(tokens, 6)
        assert found["kl"] == pytest.approx(float(uniform_kl(code_of)[:5].mean()), rel=1e-5)
        assert found["loss"] == pytest.approx(-found["elbo"], rel=1e-5)  # beta is 1
        counts = np.bincount(np.asarray(tokens[:5]).ravel(), minlength=6)
        assert found["codebook_usage"] == pytest.approx((counts > 0).sum() / 6)
        features = task.features(variables, shown[:5]) * tokens[0].size
        np.testing.assert_allclose(features.sum(0), counts, 1e-5)
        seen = np.clip(task.model.apply(own, latent, method="decode"), 0, 1)
        np.testing.assert_array_equal(task.model.apply(own, tokens, method="pictures"), seen)
    output = np.asarray(task.model.apply(own, latent, method="decode"), np.float64)
    if likelihood == "bernoulli":
        mean = 1 / (1 + np.exp(-output))
        nll = -(pixels * np.log(mean) + (1 - pixels) * np.log(1 - mean))
    elif likelihood == "laplace":
        mean = output
        nll = np.abs(pixels - mean) / 0.3 + np.log(2 * 0.3)
    else:
        mean = output / 2 + 0.5
        nll = 0.5 * ((pixels - mean) / 0.3) ** 2 + np.log(0.3) + 0.5 * np.log(2 * np.pi)
    assert found["reconstruction"] == pytest.approx(nll.sum((1, 2, 3))[:5].mean(), rel=1e-4)
    errors = np.square(np.clip(mean, 0, 1) - pixels).mean((1, 2, 3))[:5]
    assert found["psnr"] == pytest.approx(-10 * np.log10(errors).mean(), rel=1e-4)
    assert -1 <= found["ssim"] <= 1
    if code == "vector":
        assert not {"kl", "elbo", "bits_per_dimension"} & found.keys()
        assert found["loss"] == pytest.approx(found["reconstruction"])
    else:
        dimensions, steps = shown[0].size, 0 if likelihood == "bernoulli" else 8
        bits = -found["elbo"] / dimensions / math.log(2) + steps
        assert found["bits_per_dimension"] == pytest.approx(bits, rel=1e-4)
    if code == "codebook":
        assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"], rel=1e-5)
    if code == "posterior":  # of one draw; the loss is minus the bound where beta is 1
        assert found["elbo"] == pytest.approx(-found["loss"], rel=1e-5)
    declared = {name for name in found if base.metric_of(task, name)}
    assert declared == found.keys()
    if task.compares_samples:
        drawn = np.asarray(task.latents(row_keys(jax.random.split(KEY)[1], 6)))
        made = np.asarray(task.generate(variables, drawn, row_keys(KEY, 6))) / 255
        np.testing.assert_allclose(rows["fake_pixels"].mean(1), made.mean((1, 2, 3)), atol=3e-3)
    else:
        np.testing.assert_allclose(
            rows["fake_pixels"], np.clip(mean, 0, 1).reshape(6, -1), atol=1e-4
        )
    assert set(task.score(rows)) == set(task.scores())


def test_more_than_one_draw_agrees_with_the_bound():
    """The mean over draws is what one draw estimates; a sharp posterior has nothing to draw."""
    task = task_of(likelihood="bernoulli")
    variables, batch = variables_of(task), {"image": images(), "valid": jnp.ones(6, bool)}
    evaluate = jax.jit(lambda v, b, k: task.evaluate(v, b, k)[0])
    drawn = [compute(evaluate(variables, batch, jax.random.key(k)))["elbo"] for k in range(20)]
    again = compute(evaluate(variables, batch, jax.random.key(3)))["elbo"]
    assert again == drawn[3]
    assert np.std(drawn) > 0
    params = variables["params"]
    sharp = {
        **params["encoder"],
        "log_var": jax.tree.map(lambda x: 0 * x - 30.0, params["encoder"]["log_var"]),
    }
    sharp["log_var"]["kernel"] *= 0
    variables = {**variables, "params": {**params, "encoder": sharp}}
    found = compute(evaluate(variables, batch, KEY))
    assert found["elbo"] == pytest.approx(-found["reconstruction"] - found["kl"], rel=1e-5)


# -- training ----------------------------------------------------------------------------------


def step_of(task, rate=1e-3, total=1, **options):
    groups = {"main": Group(optax.adam(rate), **options)}
    state = init_state(variables_of(task), groups)
    return jax.jit(make_train_step(task, groups, seed=0, total=total)), state


@pytest.mark.parametrize("code", ["vector", "posterior", "codebook"])
def test_it_learns(code):
    task = task_of(code, scale=0.1)
    step, state = step_of(task, 1e-2)
    tone = jnp.asarray(RNG.integers(0, 256, (16, 1, 1, 1)), jnp.uint8)
    batch = {"image": jnp.broadcast_to(tone, (16, 8, 8, 1)), "valid": jnp.ones(16, bool)}
    before, _ = metrics_of(task, state.variables(), batch)
    for _ in range(80):
        state, sums = step(state, batch)
    after, _ = metrics_of(task, state.variables(), batch)
    assert after["psnr"] > before["psnr"] + 5
    logged = compute(jax.device_get(sums))
    wanted = {
        "vector": set(),
        "posterior": {"kl", "active_units"},
        "codebook": {"commitment", "codebook_perplexity", "codebook_usage"},
    }[code]
    assert logged.keys() == {"loss", "reconstruction", "gradient_norm"} | wanted
    if code == "codebook":
        old, new = (
            s["codebook"]["quantizer"]["embeddings"]
            for s in (variables_of(task), state.variables())
        )
        assert not np.array_equal(old, new)


def test_the_schedules_of_tokens():
    """Temperature and weight along half a cosine, by the share of the training that is over."""
    task = task_of(
        "tokens", beta=6.6, beta_warmup=0.25, temperature=2.0, final_temperature=0.5, annealing=0.5
    )
    for part, temperature, beta in (
        (0.0, 2.0, 0.0),
        (0.125, 0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2, 3.3),
        (0.25, 1.25, 6.6),
        (0.5, 0.5, 6.6),
        (1.0, 0.5, 6.6),
    ):
        assert [float(x) for x in task.schedules(part)] == pytest.approx([temperature, beta])
    step = jax.jit(make_train_step(task, {"main": Group(optax.sgd(0.0))}, seed=0, total=4))
    state = init_state(variables_of(task), {"main": Group(optax.sgd(0.0))})
    batch = {"image": images(), "valid": jnp.arange(6) < 5}
    found = []
    for _ in range(3):
        state, sums = step(state, batch)
        logged = compute(jax.device_get(sums))
        found.append((logged["temperature"], logged["loss"] - logged["reconstruction"]))
    temperatures, costs = zip(*found)
    assert temperatures == pytest.approx((2.0, 1.25, 0.5))
    assert costs == pytest.approx((0.0, 6.6 * logged["kl"], 6.6 * logged["kl"]), rel=1e-3, abs=1e-3)


def test_codes_of_tokens_do_not_collapse():
    """Images of several tones keep several codes, and what comes back of them is near."""
    task = task_of("tokens", likelihood="logit_laplace", beta=0.1)
    assert task.model.scales
    step, state = step_of(task, 1e-2, total=30)
    tone = jnp.linspace(0, 255, 16).astype(jnp.uint8).reshape(16, 1, 1, 1)
    batch = {"image": jnp.broadcast_to(tone, (16, 8, 8, 1)), "valid": jnp.ones(16, bool)}
    before, _ = metrics_of(task, state.variables(), batch)
    for _ in range(30):
        state, sums = step(state, batch)
    after, _ = metrics_of(task, state.variables(), batch)
    assert after["codebook_perplexity"] > 2
    assert after["loss"] < before["loss"] - 10
    made = task.predict(state.variables(), batch, KEY)
    own = task.of_network(state.variables())
    seen = np.asarray(task.model.apply(own, made["codes"], method="pictures"))
    np.testing.assert_array_equal(np.round(255 * seen), made["image"])
    assert compute(jax.device_get(sums)).keys() == {
        *("loss", "reconstruction", "gradient_norm", "kl", "temperature"),
        *("codebook_perplexity", "codebook_usage"),
    }


def test_what_tokens_cannot_be_made_of():
    config = configured("tokens")
    config.data.std = (0.5,)
    with pytest.raises(UserError, match=r"dvae takes images from 0 to 1: set data\.mean=\(0\.0,\)"):
        tasks.create(config, Facts())
    with pytest.raises(UserError, match="model that gives a scale with each value 'vae_conv'"):
        task_of("posterior", likelihood="logit_laplace")


def test_beta_and_free_bits_weigh_the_divergence():
    batch = {"image": images(), "valid": jnp.arange(6) < 5}
    variables = variables_of(task_of())
    params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def parts(**keys):
        objective, (_, sums) = task_of(**keys).loss(params, rest, batch, KEY)
        found = {name: float(mean.value) for name, mean in objective.means.items()}
        return found, compute(sums)["kl"]

    once, kl = parts()
    assert once["kl"] == pytest.approx(kl)
    twice, same = parts(beta=2.5)
    assert (twice["kl"], same) == (pytest.approx(2.5 * kl), kl)
    assert twice["reconstruction"] == once["reconstruction"]
    free, _ = parts(free_bits=100.0)
    assert free["kl"] == pytest.approx(300.0)  # three latent variables say less than that
    some, _ = parts(free_bits=1e-4, beta=3.0)
    assert some["kl"] == pytest.approx(3 * kl, rel=1e-3)


def test_micro_batches_add_up():
    """A norm over micro-batches aside: an MLP has none."""
    config = configured()
    config.model.name, config.model.options = "vae_mlp", {"size": 8, "hidden": 5, "latent": 3}
    config.optimizer.name, config.schedule.name = "sgd", "constant"
    config.optimizer.learning_rate, config.optimizer.momentum = 1.0, 0.0
    task, spec = tasks.create(config, Facts()), base.image_spec((8, 8, 1))
    batch = {"image": images(8), "valid": jnp.ones(8, bool)}
    variables = variables_of(task)
    gradients = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "normal", lambda key, shape, dtype=None: jnp.full(shape, 0.5))
        for parts in (1, 4):
            config.optimizer.accumulate = parts
            groups = optimizer.groups_of(
                config, task, variables["params"], spec, total=1, steps_per_epoch=1
            )
            step = jax.jit(make_train_step(task, groups, seed=0))
            state, _ = step(init_state(variables, groups), batch)
            gradients.append(jax.tree.map(jnp.subtract, variables["params"], state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), *gradients)
    config.optimizer.accumulate = 4
    assert task.notes(config) == []
    (note,) = task_of(free_bits=0.1).notes(config)
    assert "free bits of each micro-batch" in note
    (note,) = task_of("codebook").notes(config)
    assert "the codebook moves with each micro-batch" in note


def test_the_scale_is_learnt():
    """It becomes the root of the mean squared error, which is its maximum likelihood."""
    task = task_of("vector", learn_scale=True, scale=1.0)
    variables = variables_of(task)
    assert float(variables["params"]["log_scale"]) == 0.0
    batch = {"image": images(64), "valid": jnp.ones(64, bool)}
    step, state = step_of(task, 1e-2)
    for _ in range(500):
        state, sums = step(state, batch)
    logged = compute(sums)
    assert 0.2 < logged["scale"] < 0.3  # of pixels that are alike from 0 to 1, 0.29 at most
    nats = 64 * (math.log(logged["scale"]) + math.log(2 * math.pi * math.e) / 2)
    assert logged["reconstruction"] == pytest.approx(nats, abs=0.5)
    found, _ = metrics_of(task, state.variables(), batch)
    assert found["scale"] == pytest.approx(logged["scale"], rel=0.02)
    assert "log_scale" not in task.parts(state.variables())["model"]["params"]


# -- use ---------------------------------------------------------------------------------------


def test_samples():
    task = task_of()
    variables = variables_of(task)
    few, many = (np.asarray(task.sample(variables, KEY, n)) for n in (2, 5))
    assert few.dtype == np.uint8
    np.testing.assert_allclose(few, many[:2], atol=1)
    keys = row_keys(KEY, 3)
    latents = task.latents(keys)
    np.testing.assert_array_equal(latents, task.latents(row_keys(KEY, 5))[:3])
    still = task.generate(variables, latents, keys, None, Sampling(truncation=0.0))
    np.testing.assert_array_equal(still[0], still[2])
    maps = task_of("map")
    assert maps.latents(keys).shape == (3, 4, 6, 4)
    of_maps = jax.eval_shape(lambda: init_variables(maps, 0, base.image_spec((8, 12, 1))))
    made = jax.eval_shape(lambda v: maps.sample(v, KEY, 2), of_maps)
    assert made.shape == (2, 8, 12, 1)
    for code, name in (("vector", "ConvAutoencoder"), ("codebook", "VQVAE")):
        with pytest.raises(UserError, match=f"Codes of {name} have no prior to draw from"):
            task_of(code).latents(keys)


def test_what_evaluation_compares():
    assert [task_of(code).compares_samples for code in NETWORKS] == [False, True, *[False] * 3]
    assert task_of("map", compared="samples").compares_samples
    assert not task_of("posterior", compared="reconstructions").compares_samples
    with pytest.raises(UserError, match="compared='samples': codes of ae_conv have no prior"):
        task_of("vector", compared="samples")


@pytest.mark.parametrize("code", ["codebook", "map"])
def test_photographs_of_any_size(code):
    """What is continued to a multiple of the stride is cut back."""
    task = task_of(code)
    variables = variables_of(task, (8, 12))
    shown = images(2, (9, 14))
    stride = task.model.stride
    whole = jnp.pad(shown, ((0, 0), (0, -9 % stride), (0, -14 % stride), (0, 0)), "edge")
    found, padded = (
        jax.jit(task.predict)(variables, {"image": x, "valid": jnp.ones(2, bool)}, KEY)
        for x in (shown, whole)
    )
    assert found["image"].shape == (2, 9, 14, 1)
    np.testing.assert_array_equal(found["image"], padded["image"][:, :9, :14])
    assert np.all(found["reconstruction"] != padded["reconstruction"])
    name = "kl" if code == "map" else "codes"
    np.testing.assert_array_equal(found[name], padded[name])


def test_features_and_parts():
    task = task_of()
    variables = variables_of(task)
    features = task.features(variables, images())
    assert features.shape == (6, 3)
    parts = task.parts(variables)
    assert list(parts) == ["model", "encoder", "decoder"]
    assert set(parts["encoder"]) == {"params", "batch_stats"}
    assert "embedding" in parts["encoder"]["params"]
    assert task_of("codebook").features(variables_of(task_of("codebook")), images()).shape == (
        6,
        16,
    )
    mlp = configured()
    mlp.model.name, mlp.model.options = "vae_mlp", {"size": 8}
    task = tasks.create(mlp, Facts())
    assert list(task.parts(variables_of(task))) == ["model"]


def test_networks_of_other_tasks_are_refused():
    config = configured()
    config.model.name, config.model.options = "resnet8_cifar", {}
    with pytest.raises(UserError, match="Unknown model that encodes and decodes 'resnet8_cifar'"):
        tasks.create(config, Facts())
    with pytest.raises(
        UserError, match="learn_scale is for gaussian and laplace; bernoulli has no"
    ):
        task_of(likelihood="bernoulli", learn_scale=True)


def test_the_task_of_each_network():
    kinds = [type(task_of(code)) for code in NETWORKS]
    assert kinds == [Autoencoding, Variational, Quantized, Tokens, Variational]
    assert [kind.main_metric for kind in kinds] == [
        "reconstruction",
        "elbo",
        "reconstruction",
        "elbo",
        "elbo",
    ]


# -- runs --------------------------------------------------------------------------------------

CONFIGS = Path(__file__).parents[2] / "configs" / "generation"


def begin(workdir, variant, **keys):
    config = configuration.load(f"{CONFIGS / 'fashion_mnist.py'}:{variant}")
    for key, value in {"log.tensorboard": False, "eval.pictures": 18, **keys}.items():
        configuration.set_key(config, key, value)
    return run(config, workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    begin(
        folder, "smoke", **{"autoencoding.likelihood": "gaussian", "autoencoding.learn_scale": True}
    )
    return folder


def test_pictures_have_images_reconstructions_and_samples(trained):
    picture = np.asarray(Image.open(trained / "reconstructions.png"))
    assert picture.shape == (6 * 50, 16 * 50, 3)  # eighteen images of 48 pixels and their frames
    assert (picture[150:, 100:] == 255).all()
    assert (picture[:150, :100] != 255).any()


def test_reconstructions_of_files(trained, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    output = tmp_path / "out"
    files = ["predict", "--workdir", str(trained), str(tmp_path), "--output", str(output)]
    cli._dispatch(files)
    first, second = json.loads((output / "predictions.json").read_text())
    assert first.keys() == {"file", "reconstruction", "kl", "psnr", "picture"}
    assert first["kl"] != second["kl"]
    both = np.asarray(Image.open(output / "a.png"))
    assert both.shape == (162, 324, 3)
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(both[1:161:20, 1:161:20, 0], shown)
    found = runs.open(trained).predict([tmp_path / "a.png"])[0].outputs
    np.testing.assert_array_equal(both[1:161:20, 163:323:20, 0], found["image"][..., 0])


def test_what_comes_back_to_the_bit():
    """Its PSNR is no number of JSON."""
    outputs = {"reconstruction": np.float32(1.5), "psnr": np.float32(np.inf), "codes": np.eye(2)}
    found, report = SimpleNamespace(outputs=outputs), tasks.report("autoencoding")
    expected = {"reconstruction": 1.5, "psnr": None, "codes_used": 2}
    assert report.summary(None, found) == expected
    assert report.cell(None, found) == "PSNR inf dB, reconstruction 1.50 nats, 2 codes"


def test_samples_and_features_of_a_run(trained, tmp_path):
    output = tmp_path / "samples"
    cli._dispatch(["sample", "--workdir", str(trained), "--count", "3", "--output", str(output)])
    assert len(list(output.glob("0*.png"))) == 3
    shown = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    vectors = features.deep(trained, shown)
    assert vectors.shape == (5, 4)
    opened = runs.open(trained)
    np.testing.assert_allclose(
        vectors, opened.task.features(opened.variables, jnp.asarray(shown)), 1e-4, 1e-5
    )


def test_a_run_goes_out_and_others_start_from_it(trained, tmp_path):
    """What is beside the network, a scale that is learnt, stays behind."""
    file = tmp_path / "vae.safetensors"
    cli._dispatch(["export-torch", str(file), "--workdir", str(trained)])
    assert "log_scale" not in read_state_dict(file)
    config = runs.open(trained).config
    other = runs.with_weights(config, str(file))
    theirs = runs.open(trained).variables
    own = other.variables_for((8, 8, 1))
    jax.tree.map(
        np.testing.assert_array_equal, own["params"]["encoder"], theirs["params"]["encoder"]
    )
    assert float(own["params"]["log_scale"]) == pytest.approx(math.log(0.1))
    for start in (str(file), f"run:{trained}"):
        config.model.weights = start
        task = other.task
        fresh = variables_of(task)
        loaded = task.load_weights(config, fresh, weights_of.read)
        jax.tree.map(
            np.testing.assert_array_equal, loaded["params"]["decoder"], theirs["params"]["decoder"]
        )
        assert loaded["params"]["log_scale"] is fresh["params"]["log_scale"]


def test_a_network_judges_reconstructions():
    config = configured("codebook")
    config.autoencoding.judge.network, config.autoencoding.judge.weights = "mlp", "given"
    config.autoencoding.judge.options = {"hidden": (6,)}
    task = tasks.create(config, Facts())
    variables = variables_of(task)
    assert task.names_weights(config)
    trained = task.judge.model.init(jax.random.key(7), jnp.zeros((1, 8, 8, 1)))
    given = Weights(torch_weights.to_state_dict(trained), "given")
    loaded = task.load_weights(config, variables, lambda *_: given)
    jax.tree.map(np.testing.assert_array_equal, loaded["judge"], dict(trained))
    own = Weights(torch_weights.to_state_dict(task.of_network(variables)), "file")
    shapes = jax.eval_shape(lambda: variables)
    again = task.with_weights("vqvae_ema", own, shapes, lambda *_: given)
    jax.tree.map(np.testing.assert_array_equal, again, loaded)
    batch = {"image": images(12), "valid": jnp.ones(12, bool)}
    found, rows = metrics_of(task, loaded, batch)
    assert "codebook_perplexity" in found
    assert {"fid", "kid"} <= task.score(rows).keys() == set(task.scores())
    step, _ = step_of(task)
    state = init_state(loaded, {"main": Group(optax.adam(1e-3))})
    new, _ = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, new.model_state["judge"], dict(trained))


# -- published weights ---------------------------------------------------------------------------


def test_a_kl_autoencoder_by_its_name(tmp_path, monkeypatch):
    """A file as diffusers wrote it once, used on photographs as they are."""
    options = {"widths": (4, 4, 4, 4), "depth": 1, "groups": 2}
    model = models.create("autoencoder_kl", **options)
    shapes = torch_weights.torch_shapes(
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    )
    state = {name.replace("to_q", "query"): weights(name, shape) for name, shape in shapes.items()}
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(state, file)
    about = published("autoencoder_kl")["sd_vae_ft_mse"]
    assert about.hub == "stabilityai/sd-vae-ft-mse"
    monkeypatch.setattr(module, "hub_file", lambda repository: {about.hub: file}[repository])
    opened = runs.published("autoencoder_kl", "default", {"model.options": options})
    assert opened.config.task == "autoencoding"
    assert opened.config.data.eval_transforms == ()
    photograph = RNG.integers(0, 256, (20, 33, 3)).astype(np.uint8)
    (one,) = opened.predict([photograph])
    assert one.outputs["image"].shape == (20, 33, 3)
    with pytest.raises(UserError, match=r"how images of vae_mlp are prepared; give --config"):
        pretrained.usual("vae_mlp", 0)
    assert file_in(tmp_path) == file


def test_the_published_vae(shared_data):
    """KL and cross-entropy of the 10,000 test images, as PyTorch computes them."""
    folder = shared_data / "weights" / "vae_mnist"
    config = configuration.load(
        str(CONFIGS / "mnist_vae.py"), {"data.dir": str(shared_data / "mnist_test")}
    )
    opened = runs.with_weights(config, str(folder / "vae_epoch_25.pth"))
    found, _ = opened.evaluate()
    assert found["kl"] == pytest.approx(25.75474, abs=1e-4)
    assert found["reconstruction"] == pytest.approx(69.16518, abs=1e-4)
    assert found["elbo"] == pytest.approx(-103.2, abs=0.1)
    reference = np.load(folder / "reference_first64.npz")
    stream = open_stream(config.data, "test", seed=0, train=False, annotations=())
    shown = jnp.stack([stream[i]["image"] for i in range(64)])
    own, normal = opened.variables, opened.task.inputs.evaluate(shown)
    posterior = opened.model.apply(own, normal, method="encode")
    np.testing.assert_allclose(posterior.mean, reference["mu"], 1e-3, 1e-4)
    np.testing.assert_allclose(posterior.log_variance, reference["logvar"], 1e-3, 1e-4)
    seen = jax.nn.sigmoid(opened.model.apply(own, normal))
    np.testing.assert_allclose(seen.reshape(64, -1), reference["recon"].reshape(64, -1), 0, 1e-4)
