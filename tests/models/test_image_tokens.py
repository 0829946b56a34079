"""Image GPT and DALL-E's encoder beside transformers: logits, continuations, loss and gradients."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.deterministic import sample, weights
from parity.image_tokens import (
    CODEBOOK,
    GOLDEN,
    GRADIENTS,
    IGPT,
    OUTPUTS,
    POSITIONS,
    SEEN,
    image,
    pixels,
)

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops import decoding

FOUND = np.load(GOLDEN)
PUBLISHED = json.loads(str(FOUND["published"]))
MODELS = {
    "igpt": ("imagegpt_small", models.create("imagegpt_small", **IGPT)),
    "codebook": ("flava_image_codebook", models.create("flava_image_codebook", **CODEBOOK)),
}
X = {
    "igpt": jnp.asarray(pixels()[:, :-1], jnp.int32),
    "codebook": jnp.asarray(np.moveaxis(image(), 1, -1)),
}


def state(part):
    shapes = json.loads(str(FOUND[f"{part}/shapes"]))
    return {name: weights(name, tuple(shape)) for name, shape in shapes.items()}


@functools.cache
def variables(part):
    """With the reference's weights, all of which are used."""
    name, model = MODELS[part]
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), X[part]))
    return torch_weights.to_variables(models.variant(name).convert(state(part)), like)


def compare(ours, expected):
    np.testing.assert_allclose(ours, expected, 1e-4, 1e-4 * np.abs(expected).max())


def test_loss_gradients_and_logits_of_image_gpt():
    model, said = MODELS["igpt"][1], jnp.asarray(pixels(), jnp.int32)

    @jax.jit
    def step(variables):
        def loss(variables):
            logits = model.apply(variables, said[:, :-1], True)
            nll = optax.softmax_cross_entropy_with_integer_labels(logits, said[:, 1:])
            return nll.mean(), logits

        return jax.value_and_grad(loss, has_aux=True)(variables)

    (loss, logits), gradients = step(variables("igpt"))
    compare(sample(logits, OUTPUTS), FOUND["igpt/logits"])
    np.testing.assert_allclose(loss, FOUND["igpt/loss"], 1e-5)
    theirs = models.variant("imagegpt_small").export(torch_weights.to_state_dict(gradients))
    learnt = FOUND["igpt/learnt"].tolist()
    assert sorted(theirs) == sorted(learnt)
    norms = np.array([np.linalg.norm(theirs[key]) for key in learnt])
    np.testing.assert_allclose(norms, FOUND["igpt/norms"], 1e-3, 1e-6 * norms.max())
    expected, start = FOUND["igpt/gradients"], 0
    for key, norm in zip(learnt, norms):
        part = sample(theirs[key], GRADIENTS)
        error = np.abs(part - expected[start : start + len(part)])
        assert np.all(error <= 1e-3 * norm / theirs[key].size ** 0.5 + 1e-6 * norms.max()), key
        start += len(part)


def test_what_probes_see_of_image_gpt():
    model = MODELS["igpt"][1]
    seen = jax.jit(lambda v, x: [model.apply(v, x, i, method="features") for i in range(3)])
    for index, found in enumerate(seen(variables("igpt"), X["igpt"])):
        compare(found, FOUND[f"igpt/features/{index}"])


def test_continuations_are_those_of_generate():
    """Pixel by pixel from a cache; those that are there already are given."""
    model, count = MODELS["igpt"][1], POSITIONS
    given = jnp.asarray(np.where(np.arange(count) < SEEN - 1, pixels()[:, 1:], -1), jnp.int32)

    @jax.jit
    def continued(variables, given, keys):
        step = functools.partial(model.apply, variables, method="step")
        cache = model.apply(variables, 3, method="start")
        ends = {"begin": IGPT["colours"], "end": -1, "pad": 0, "length": count, "given": given}
        return decoding.greedy(step, cache, **ends), decoding.sample(
            step, cache, keys, **ends, top_k=1
        )

    keys = jax.random.split(jax.random.key(0), 3)
    greedy, sampled = continued(variables("igpt"), given, keys)
    np.testing.assert_array_equal(greedy.tokens, FOUND["igpt/continued"][:, 1:])
    np.testing.assert_array_equal(sampled.tokens, greedy.tokens)


def test_tokens_of_images():
    model = MODELS["codebook"][1]
    logits = jax.jit(model.apply)(variables("codebook"), X["codebook"] * 0.8 + 0.1)
    compare(sample(logits, OUTPUTS), FOUND["codebook/logits"])
    tokens = jax.jit(functools.partial(model.apply, method="tokens"))
    found = tokens(variables("codebook"), X["codebook"])
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, FOUND["codebook/tokens"])
    with pytest.raises(UserError, match="multiples of 8; not of 16x20"):
        tokens(variables("codebook"), X["codebook"][:, :, :20])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    entry, model = models.variant(name), models.create(name)
    x = jax.ShapeDtypeStruct((1, *entry.input_shape), jnp.float32)
    output, found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == PUBLISHED[name]
    assert output.shape == ((1, 14, 14, 8192) if "codebook" in name else (1, 1024, 512))


def test_sizes_of_the_papers():
    assert PUBLISHED["imagegpt_small"] == 76_682_240
    assert PUBLISHED["flava_image_codebook"] == 53_786_240


@pytest.mark.parametrize("part", MODELS)
def test_state_dicts_go_there_and_back(part):
    entry, theirs = models.variant(MODELS[part][0]), state(part)
    ours = torch_weights.to_state_dict(variables(part))
    exported = entry.export(ours)
    assert exported.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(exported[key], value)
    older = {
        f"transformer.h.0.attn.{name}": np.ones((1, 1, 4, 4)) for name in ("bias", "masked_bias")
    }
    for form in (exported, ours, *([exported | older] if part == "igpt" else [])):
        found = entry.convert(form)
        assert found.keys() == ours.keys()
        for key, value in ours.items():
            np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("part", MODELS)
def test_bfloat16(part):
    model = MODELS[part][1].clone(dtype=jnp.bfloat16)
    output = jax.eval_shape(model.apply, variables(part), X[part])
    assert output.dtype == jnp.bfloat16


def test_more_pixels_than_positions_are_refused():
    model = MODELS["igpt"][1]
    with pytest.raises(UserError, match="13 pixels; this network has positions for 12"):
        jax.eval_shape(model.apply, variables("igpt"), jnp.zeros((1, 13), jnp.int32))
    odd = model.clone(num_heads=3)
    with pytest.raises(UserError, match="16 channels do not divide among 3 heads"):
        jax.eval_shape(lambda: odd.init(jax.random.key(0), X["igpt"]))
