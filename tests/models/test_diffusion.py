"""Diffusion networks against diffusers, and a DiT in PyTorch: goldens of parity/diffusion.py."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.deterministic import image, labels, sample, weights
from parity.diffusion import CASES, GOLDEN, GRADIENTS, OUTPUTS, TIMESTEPS

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.interop.published import published
from jaxvision.layers.positions import sincos_positions
from jaxvision.layers.timesteps import timestep_embedding

FOUND = np.load(GOLDEN)
TIME = jnp.array(TIMESTEPS)


def channels_last(array):
    return jnp.asarray(np.moveaxis(array, 1, -1))


def prepared(name, **more):
    """(network, variables by the reference's names, inputs)."""
    case = CASES[name]
    network = models.create(case.model, **case.options, **more)
    x = channels_last(image(case.image))
    shapes = json.loads(str(FOUND[f"{name}/shapes"]))
    state = {key: weights(key, tuple(shape)) for key, shape in shapes.items()}
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), x))
    label = None
    if classes := case.options.get("classes", 0):
        label = jnp.asarray(labels(case.image[:1], classes + 1), jnp.int32)
    return network, torch_weights.to_variables(state, like), (x, TIME, label)


@pytest.mark.parametrize("name", CASES)
def test_outputs_loss_and_gradients(name):
    network, variables, inputs = prepared(name)
    channels = CASES[name].options.get("out_channels", CASES[name].image[1])
    wanted = image((len(TIME), channels, *CASES[name].image[2:]), 1)

    @jax.jit
    def step(variables):
        def loss(variables):
            output = network.apply(variables, *inputs, train=True)
            return jnp.square(output - channels_last(wanted)).mean(), output

        return jax.value_and_grad(loss, has_aux=True)(variables)

    (loss, output), gradient = step(variables)
    expected = FOUND[f"{name}/output"]
    found = sample(np.moveaxis(output, -1, 1), OUTPUTS)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(loss, FOUND[f"{name}/loss"], 1e-4)
    gradients = torch_weights.to_state_dict(gradient)
    learnt = json.loads(str(FOUND[f"{name}/learnt"]))
    assert {key for key, value in gradients.items() if np.any(value)} == set(learnt)
    norms = np.array([np.linalg.norm(gradients[key]) for key in learnt])
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-3, 1e-5)
    parts = [sample(gradients[key], GRADIENTS) for key in learnt]
    expected, size = (
        FOUND[f"{name}/gradients"],
        [n / gradients[k].size ** 0.5 for n, k in zip(norms, learnt)],
    )
    scale = np.concatenate([np.full(len(part), one) for part, one in zip(parts, size)])
    error = np.abs(np.concatenate(parts) - expected)
    assert np.all(error <= 1e-3 * (scale + np.abs(expected)) + 1e-6)


def test_names_travel_there_and_back(tmp_path):
    for name in CASES:
        _, variables, _ = prepared(name)
        torch_weights.save(tmp_path / "network.safetensors", variables)
        again = torch_weights.load(tmp_path / "network.safetensors", variables)
        jax.tree.map(np.testing.assert_array_equal, variables, again)


@pytest.mark.parametrize(
    ("name", "shape", "options", "expected"),
    [
        ("ddpm_cifar10", (32, 32, 3), {}, 35_746_307),
        ("ddpm_256", (64, 64, 3), {}, 113_673_219),
        # Of the authors' networks: latents of four channels, noise and variance of 1000 classes.
        ("dit_s", (32, 32, 4), {"classes": 1000, "out_channels": 8}, 32_865_056),
        ("dit_b", (32, 32, 4), {"classes": 1000, "out_channels": 8}, 130_315_808),
        ("dit_l", (32, 32, 4), {"classes": 1000, "out_channels": 8}, 457_840_672),
        ("dit_xl", (32, 32, 4), {"classes": 1000, "out_channels": 8}, 674_834_720),
    ],
)
def test_counts(name, shape, options, expected):
    network = models.create(name, **options)
    spec = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), spec)["params"]
    params.pop("pos_embed", None)  # which is not learnt
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_embeddings():
    np.testing.assert_allclose(
        sincos_positions((3, 3), 24, endpoint=False), FOUND["positions"][0], 1e-5, 1e-6
    )
    found = timestep_embedding(TIME, 16)
    np.testing.assert_allclose(found, FOUND["time/unet"], 1e-3, 1e-4)
    found = timestep_embedding(TIME, 16, endpoint=False, cosines_first=True)
    np.testing.assert_allclose(found, FOUND["time/dit"], 1e-3, 1e-4)


@pytest.mark.parametrize("name", ["unet_classes", "dit"])
def test_the_last_class_is_none(name):
    network, variables, (x, time, _) = prepared(name)
    apply = jax.jit(network.apply)
    none = apply(variables, x, time, jnp.full(3, 5))
    np.testing.assert_array_equal(apply(variables, x, time), none)
    assert not np.allclose(apply(variables, x, time, jnp.full(3, 4)), none)


def test_one_timestep_is_for_all():
    network, variables, (x, *_) = prepared("unet")
    found = jax.jit(network.apply)(variables, x, 250)
    expected = jax.jit(network.apply)(variables, x, jnp.full(3, 250))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("unet", {"remat": True}, marks=pytest.mark.slow),
        ("dit", {"remat": True}),
        ("dit", {"scan": True}),
    ],
)
def test_forms_in_memory_are_the_same_network(name, options):
    plain, variables, inputs = prepared(name)
    other = models.create(CASES[name].model, **CASES[name].options, **options)

    def gradient(network):
        loss = lambda v: jnp.square(network.apply(v, *inputs, train=True)).mean()  # noqa: E731
        return jax.jit(jax.grad(loss))(variables)

    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4)  # noqa: E731
    jax.tree.map(close, gradient(plain), gradient(other))


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_bfloat16_tells_neighbouring_timesteps_apart(name):
    network, variables, (x, _, label) = prepared(name, dtype=jnp.bfloat16)
    exact, *_ = prepared(name)
    found, expected = [], []
    for timestep in (998, 999):  # which bfloat16 would round to one
        found.append(jax.jit(network.apply)(variables, x, timestep, label))
        expected.append(jax.jit(exact.apply)(variables, x, timestep, label))
        assert found[-1].dtype == jnp.bfloat16
        np.testing.assert_allclose(
            found[-1].astype(jnp.float32), expected[-1], 0.1, 0.1 * np.abs(expected[-1]).max()
        )
    assert np.any(found[0] != found[1])


def test_networks_begin_by_saying_nothing():
    network, _, inputs = prepared("dit")
    fresh = jax.jit(network.init)(jax.random.key(0), *inputs)
    assert np.all(np.asarray(jax.jit(network.apply)(fresh, *inputs)) == 0)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(fresh))


def test_what_does_not_fit_is_refused():
    unet, _, (x, time, _) = prepared("unet")
    key = jax.random.key(0)
    with pytest.raises(UserError, match=r"multiples of 4; not of 10x8"):
        jax.eval_shape(lambda: unet.init(key, jnp.zeros((1, 10, 8, 3))))
    with pytest.raises(UserError, match="knows no classes: make it with classes=N"):
        jax.eval_shape(lambda: unet.init(key, x, time, jnp.zeros(3, jnp.int32)))
    dit, _, (x, *_) = prepared("dit_unconditional")
    with pytest.raises(UserError, match="knows no classes"):
        jax.eval_shape(lambda: dit.init(key, x, time, jnp.zeros(3, jnp.int32)))
    odd = models.create("ddpm_cifar10", widths=(8, 12), groups=4, head_dim=5)
    with pytest.raises(UserError, match="12 channels do not divide into heads of 5"):
        jax.eval_shape(lambda: odd.init(key, jnp.zeros((1, 8, 8, 3))))


# -- published weights -----------------------------------------------------------------------------


def test_files_of_diffusion_networks():
    entry = published("ddpm_cifar10")["cifar10"]
    assert (entry.hub, entry.size, entry.mean) == ("google/ddpm-cifar10-32", 32, (0.5,) * 3)
    files = {tag: entry.hub for tag, entry in published("ddpm_256").items()}
    assert files == {
        "celebahq": "google/ddpm-celebahq-256",
        "church": "google/ddpm-church-256",
        "bedroom": "google/ddpm-bedroom-256",
    }


def test_files_of_old_versions_of_diffusers_are_read():
    """Published ones call the parts of attention by other names."""
    network, variables, _ = prepared("unet")
    state = torch_weights.to_state_dict(variables)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in state.items():
        for new, name in names.items():
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert len(set(old) - set(state)) == 8 * 4  # four attentions
    weights_of = pretrained.Weights(old, "a file")
    options = dict(CASES["unet"].options)
    ours, loaded = pretrained.create("ddpm_cifar10", weights_of, image_size=(16, 24), **options)
    assert ours == network
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
