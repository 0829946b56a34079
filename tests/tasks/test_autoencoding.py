"""Autoencoding: what is learnt, what is measured, samples, guards."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.losses import (
    gaussian_kl,
    uniform_kl,
)
from jaxvision.metrics import compute
from jaxvision.pretrained import Weights
from jaxvision.tasks import base, configuration
from jaxvision.tasks.autoencoding.quantized import Quantized
from jaxvision.tasks.autoencoding.task import Autoencoding
from jaxvision.tasks.autoencoding.tokens import Tokens
from jaxvision.tasks.autoencoding.variational import Variational
from jaxvision.tasks.sampling import Sampling, row_keys
from jaxvision.train import optimizer
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
