"""Autoencoders beside their PyTorch references: codes, images, losses and gradients."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.autoencoding import (
    BETA,
    CASES,
    GOLDEN,
    GRADIENTS,
    OUTPUTS,
    SCALE,
    TEMPERATURE,
    noise,
    pixels,
    value,
)
from parity.deterministic import sample

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.models.autoencoding.vqvae import Quantizer
from jaxvision.tasks.autoencoding.likelihood import Likelihood
from jaxvision.tasks.autoencoding.quantized import Quantized
from jaxvision.tasks.autoencoding.task import Autoencoding
from jaxvision.tasks.autoencoding.tokens import Tokens
from jaxvision.tasks.autoencoding.variational import Variational
from jaxvision.tasks.inputs import Inputs

FOUND = np.load(GOLDEN)
PUBLISHED = json.loads(str(FOUND["published"]))
KINDS = {
    "vector": Autoencoding,
    "posterior": Variational,
    "codebook": Quantized,
    "tokens": functools.partial(
        Tokens, beta=BETA, temperature=TEMPERATURE, final_temperature=TEMPERATURE
    ),
}


def network(name, **more):
    case = CASES[name]
    return models.create(case.model, **{**case.options, **more})


def task_of(name):
    case = CASES[name]
    between = case.likelihood == "gaussian"
    inputs = Inputs((0.5,), (0.5,)) if between else Inputs((0.0,), (1.0,))
    likelihood = Likelihood(inputs, case.likelihood, SCALE)
    return KINDS[case.code](model=network(name), likelihood=likelihood, inputs=inputs)


def images(name):
    return jnp.asarray(np.moveaxis(pixels(name, int(FOUND[f"{name}/draw"])), 1, -1))


def shapes_of(name):
    return {k: tuple(v) for k, v in json.loads(str(FOUND[f"{name}/shapes"])).items()}


@functools.cache
def variables(name):
    """With the reference's weights, all of which are used."""
    entry = models.variant(CASES[name].model)
    state = {key: value(key, shape) for key, shape in shapes_of(name).items()}
    x = jnp.zeros((1, *images(name).shape[1:]))
    like = jax.eval_shape(lambda: network(name).init(jax.random.key(0), x))
    return torch_weights.to_variables(entry.convert(state), like)


def compare(ours, expected):
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())


def channels_first(x):
    return np.moveaxis(x, -1, 1) if x.ndim == 4 else x


@functools.cache
def computed(name):
    """Codes and images in evaluation; the loss, its gradient, the sums and what changes."""
    task, model = task_of(name), network(name)
    case = CASES[name]

    @jax.jit
    def both(variables, image, drawn):
        apply = functools.partial(model.apply, variables)
        normal = task.inputs.evaluate(image)
        code = apply(normal, method="encode")
        latent = code
        if case.code == "posterior":
            latent = code.mean
        elif case.code == "codebook":
            latent = apply(code, method="quantize").vectors
        elif case.code == "tokens":
            latent = jax.nn.one_hot(apply(normal, method="tokens"), model.codes)
        output = apply(latent, method="decode")
        seen = (code, jax.nn.sigmoid(output) if case.bernoulli else output, apply(normal))
        params, rest = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        batch = {"image": image, "valid": jnp.ones(len(image), bool)}

        def lowered(params):
            objective, (changed, sums) = task.loss(params, rest, batch, jax.random.key(0))
            return objective.loss, (objective, changed, sums)

        # The reference's posterior is drawn by given numbers.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.random, "normal", lambda *_: drawn)
            patch.setattr(jax.random, "gumbel", lambda *_: drawn)
            return seen, jax.value_and_grad(lowered, has_aux=True)(params)

    drawn = jnp.zeros(())
    if case.code in ("posterior", "tokens"):
        found = jax.eval_shape(
            lambda v, x: model.apply(v, x.astype(jnp.float32), method="encode"),
            variables(name),
            images(name),
        )
        shape = (found.mean if case.code == "posterior" else found).shape
        first = (shape[0], shape[-1], *shape[1:-1])
        drawn = jnp.asarray(np.moveaxis(noise(name, first), 1, -1), jnp.float32)
    return both(variables(name), images(name), drawn)


@pytest.mark.parametrize("name", CASES)
def test_codes_and_images(name):
    (code, output, whole), _ = computed(name)
    parts = code if CASES[name].code == "posterior" else [code]
    for index, part in enumerate(parts):
        compare(sample(channels_first(part), OUTPUTS), FOUND[f"{name}/code/{index}"])
    compare(sample(channels_first(output), OUTPUTS), FOUND[f"{name}/output"])
    shown = jax.nn.sigmoid(whole) if CASES[name].bernoulli else whole
    np.testing.assert_allclose(shown, output, 1e-5, 1e-5)  # a call is both, without chance
    height, width, channels = images(name).shape[1:]
    values = 2 if CASES[name].options.get("scales") else 1
    assert whole.shape[1:] == (height, width, values * channels)


@pytest.mark.parametrize("name", CASES)
def test_a_training_step(name):
    _, ((loss, (objective, changed, sums)), gradients) = computed(name)
    np.testing.assert_allclose(loss, FOUND[f"{name}/part/loss"], 1e-4)
    parts = {key: float(mean.value) for key, mean in objective.means.items()}
    if CASES[name].code == "codebook":  # the reference adds up what ours tells apart
        parts["codebook"] = parts.pop("codebook", 0.0) + parts.pop("commitment")
    assert parts.keys() == {k.split("/")[2] for k in FOUND if k.startswith(f"{name}/part/")} - {
        "loss"
    }
    for key, part in parts.items():
        np.testing.assert_allclose(part, FOUND[f"{name}/part/{key}"], 1e-4)
    assert {"reconstruction"} <= sums.keys()
    theirs = torch_weights.to_state_dict({"params": gradients})
    learnt = json.loads(str(FOUND[f"{name}/learnt"]))
    assert sorted(theirs) == sorted(learnt)
    norms = [np.linalg.norm(theirs[key]) for key in learnt]
    rounding = 1e-6 * max(norms)
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-3, rounding)
    samples = [sample(theirs[key], GRADIENTS) for key in learnt]
    size = np.concatenate(
        [np.full(len(s), n / theirs[k].size ** 0.5) for s, n, k in zip(samples, norms, learnt)]
    )
    expected = FOUND[f"{name}/gradients"]
    error = np.abs(np.concatenate(samples) - expected)
    assert np.all(error <= 1e-3 * (size + np.abs(expected)) + rounding)
    # Running statistics, and a codebook that follows the encoder.
    moved = torch_weights.to_state_dict(changed)
    buffers = json.loads(str(FOUND[f"{name}/buffers"]))
    assert sorted(buffers) == sorted(k for k in moved if "num_batches" not in k)
    ours = np.concatenate([[], *(sample(moved[key], GRADIENTS) for key in buffers)])
    np.testing.assert_allclose(ours, FOUND[f"{name}/moved"], 1e-4, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_state_dict_goes_there_and_back(name):
    entry = models.variant(CASES[name].model)
    theirs = entry.export(torch_weights.to_state_dict(variables(name)))
    kept = {k: v.shape for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert kept == shapes_of(name)
    for key, array in theirs.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, value(key, array.shape))


def test_older_names_of_attention():
    entry, state = models.variant("autoencoder_kl"), shapes_of("autoencoder_kl")
    older = {
        key.replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value")
        .replace("to_out.0", "proj_attn"): np.zeros(shape)
        for key, shape in state.items()
    }
    assert older.keys() != state.keys()
    assert entry.convert(older).keys() == state.keys()


def traced(model, shape):
    """What is returned and the variables, by shape."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)


# DALL-E's encoder, which makes no images, is in test_image_tokens.py.
NAMES = [n for n in models.names() if hasattr(models.variant(n).module, "CODE")]


def test_every_network_has_a_case():
    assert {*PUBLISHED, "ae_linear"} == set(NAMES)
    assert {case.model for case in CASES.values()} == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_published_sizes(name):
    """As of the references, and what the registry says of them."""
    entry, model = models.variant(name), models.create(name)
    output, found = traced(model, (1, *entry.input_shape))
    assert output.shape == (1, *entry.input_shape)
    count = sum(leaf.size for leaf in jax.tree.leaves(found["params"]))
    assert count == PUBLISHED.get(name, 2 * 784 * 16 + 16 + 784)
    assert f"{entry.first}.weight" in torch_weights.torch_shapes(found)
    assert entry.ends == ()


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name):
    output, found = traced(network(name, dtype=jnp.bfloat16), (2, *images(name).shape[1:]))
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


def test_diffusers_has_83_653_863():
    assert PUBLISHED["autoencoder_kl"] == 83_653_863


@pytest.mark.parametrize("size", [(8, 8), (40, 24), (64, 8)])
def test_a_kl_autoencoder_takes_multiples_of_its_stride(size):
    model = models.create("autoencoder_kl", widths=(4, 4, 8, 8), depth=1, groups=2)
    output, found = traced(model, (1, *size, 3))
    assert output.shape == (1, *size, 3)
    assert model.stride == 8
    code = jax.eval_shape(lambda v, x: model.apply(v, x, method="encode"), found, output)
    assert code.mean.shape == (1, size[0] // 8, size[1] // 8, 4)
    with pytest.raises(UserError, match="multiples of 8; not of 20x8"):
        traced(model, (1, 20, 8, 3))


@pytest.mark.parametrize("side", [8, 9, 11, 16])
def test_convolutions_come_back_to_any_size(side):
    model = models.create("vae_conv", size=(side, 13), widths=(3, 4, 5), channels=2)
    assert traced(model, (1, side, 13, 2))[0].shape == (1, side, 13, 2)


def test_images_that_do_not_fit():
    with pytest.raises(UserError, match=r"images of \[28, 28, 1\], these are \[8, 8, 1\]"):
        traced(models.create("vae_mlp"), (1, 8, 8, 1))
    with pytest.raises(UserError, match="4 widths halve images of 16 pixels or more, not of 8"):
        traced(models.create("ae_conv", size=8), (1, 8, 8, 1))
    with pytest.raises(UserError, match="multiples of 4; not of 8x10"):
        traced(models.create("vqvae"), (1, 8, 10, 3))
    with pytest.raises(UserError, match=r"restart wants model\.options\.moving_average=true"):
        traced(models.create("vqvae", restart=1.0), (1, 8, 8, 3))


def test_entries_that_nothing_is_near_start_again():
    """They become vectors of the batch; the others stay what the averages make of them."""
    quantizer = Quantizer(codes=3, width=2, moving_average=True, restart=0.5)
    rng = np.random.default_rng(0)
    vectors = jnp.asarray(rng.normal(size=(1, 4, 5, 2)), jnp.float32)
    entries = jnp.asarray([[0.0, 0.0], [50.0, 0.0], [0.0, 60.0]])
    before = {"embeddings": entries, "ema_embed": 4 * entries, "cluster_size": jnp.full(3, 4.0)}

    @jax.jit
    def step(codebook, key):
        return quantizer.apply(
            {"codebook": codebook}, vectors, True, mutable=["codebook"], rngs={"codes": key}
        )[1]["codebook"]

    once = step(before, jax.random.key(0))
    np.testing.assert_allclose(once["embeddings"][1:], entries[1:], 1e-3)  # often used before
    idle = {**before, "cluster_size": jnp.asarray([4.0, 0.1, 4.0])}
    found = np.asarray(step(idle, jax.random.key(0))["embeddings"])
    assert found[1].tolist() in vectors.reshape(-1, 2).tolist()
    np.testing.assert_allclose(found[2], entries[2], 1e-3)
    other = np.asarray(step(idle, jax.random.key(3))["embeddings"])
    assert found[1].tolist() != other[1].tolist()
