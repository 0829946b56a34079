"""ViT and GPT-2 beside transformers: logits, and what `generate` finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from parity.decoding import (
    CASES,
    GOLDEN,
    GRADIENTS,
    OPTIONS,
    SETTINGS,
    VOCABULARY,
    images,
    said,
    state,
)
from parity.deterministic import sample

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops import decoding

FOUND = np.load(GOLDEN)
MODEL = models.create("vit_gpt2", VOCABULARY, **OPTIONS)
ENTRY = models.variant("vit_gpt2")
ROWS = max(case.batch for case in CASES.values())


def padded(x):
    """To one batch for all cases, so that they share programs."""
    return np.concatenate([x, np.repeat(x[:1], ROWS - len(x), 0)])


@functools.cache
def variables(name):
    case = CASES[name]
    like = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), image_of(name)))
    shapes = {}
    for key, value in torch_weights.torch_shapes(like).items():
        shapes[key] = np.broadcast_to(np.float32(0), value)
    theirs = {key: value.shape for key, value in ENTRY.export(shapes).items()}
    assert sorted(theirs) == list(FOUND[f"{name}/names"])
    return torch_weights.to_variables(ENTRY.convert(state(theirs, case)), like)


def image_of(name):
    return jnp.asarray(np.moveaxis(padded(images(CASES[name])), 1, -1))


@jax.jit
def scored(variables, image, tokens):
    return MODEL.apply(variables, image, tokens)


@functools.cache
def search(setting):
    """A jitted search; begin, end and padding are arguments."""

    @jax.jit
    def found(variables, image, begin, end, pad):
        memory = MODEL.apply(variables, image, method="encode")
        cache = MODEL.apply(variables, memory, setting.length, method="start")
        step = functools.partial(MODEL.apply, variables, method="step")
        options = {"begin": begin, "end": end, "pad": pad, "length": setting.length,
                   "no_repeat_ngram_size": setting.no_repeat_ngram_size}  # fmt: skip
        if setting.beams == 1:
            return decoding.greedy(step, cache, **options)
        return decoding.beam(
            step,
            cache,
            beams=setting.beams,
            length_penalty=setting.length_penalty,
            early_stopping=setting.early_stopping,
            **options,
        )

    return found


@pytest.mark.parametrize("name", CASES)
def test_logits(name):
    tokens = jnp.asarray(padded(said(CASES[name])), jnp.int32)
    ours = scored(variables(name), image_of(name), tokens)
    np.testing.assert_allclose(ours[: CASES[name].batch], FOUND[f"{name}/logits"], 1e-4, 1e-4)


@pytest.mark.parametrize("label", SETTINGS)
def test_sequences_and_scores_of_generate(label):
    setting = SETTINGS[label]
    for name, case in CASES.items():
        special = case.begin, case.end, case.pad
        found = search(setting)(variables(name), image_of(name), *special)
        found = jax.tree.map(lambda x, count=case.batch: np.asarray(x[:count]), found)
        np.testing.assert_array_equal(found.tokens, FOUND[f"{name}/{label}/tokens"])
        np.testing.assert_allclose(found.scores, FOUND[f"{name}/{label}/scores"], 1e-4)
        check_consistent(found, setting, case)


def check_consistent(found, setting, case):
    """Lengths, log-probabilities and attention agree with tokens and scores."""
    ends = found.tokens == case.end
    expected = np.where(ends.any(1), ends.argmax(1) + 1, setting.length)
    np.testing.assert_array_equal(found.lengths, expected)
    said = np.arange(setting.length) < expected[:, None]
    assert np.all(found.log_probabilities[~said] == 0)
    penalty = setting.length_penalty if setting.beams > 1 else 0
    sums = found.log_probabilities.sum(1) / expected**penalty
    np.testing.assert_allclose(found.scores, sums, 1e-4)
    # Of the class token is the rest.
    looked = found.attention.sum((2, 3))
    assert np.all((looked[said] > 0) & (looked[said] < 1))
    assert np.all(looked[~said] == 0)


def test_loss_and_gradients():
    name = "several"
    words = jnp.asarray(said(CASES[name]), jnp.int32)

    @jax.jit
    def step(variables):
        def loss(variables):
            logits = MODEL.apply(variables, image_of(name), words[:, :-1], True)["logits"]
            nll = optax.softmax_cross_entropy_with_integer_labels
            return nll(logits, words[:, 1:]).mean()

        return jax.value_and_grad(loss)(variables)

    loss, gradients = step(variables(name))
    np.testing.assert_allclose(loss, FOUND[f"{name}/loss"], 1e-5)
    theirs = ENTRY.export(torch_weights.to_state_dict(gradients))
    learnt = FOUND[f"{name}/learnt"].tolist()  # the last layer by its first name alone
    assert sorted(theirs) == sorted([*learnt, "decoder.lm_head.weight"])
    norms = np.array([np.linalg.norm(theirs[key]) for key in learnt])
    np.testing.assert_allclose(norms, FOUND[f"{name}/norms"], 1e-3, 1e-6 * norms.max())
    expected, start = FOUND[f"{name}/gradients"], 0
    for key, norm in zip(learnt, norms):
        part = sample(theirs[key], GRADIENTS)
        error = np.abs(part - expected[start : start + len(part)])
        size = norm / theirs[key].size ** 0.5
        assert np.all(error <= 1e-3 * size + 1e-6 * norms.max()), key
        start += len(part)


def test_published_size():
    model = models.create("vit_gpt2", 50257)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    found = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == 238_605_312


def older(state):
    """The state_dict as files have it, which older versions wrote."""
    found = dict(state)
    for name in list(found):
        new = name.replace("encoder.layers.", "encoder.encoder.layer.")
        for part, old in (("q", "query"), ("k", "key"), ("v", "value")):
            new = new.replace(f".attention.{part}_proj.", f".attention.attention.{old}.")
        new = new.replace(".attention.o_proj.", ".attention.output.dense.")
        if name.startswith("encoder."):
            new = new.replace(".mlp.fc1.", ".intermediate.dense.")
            new = new.replace(".mlp.fc2.", ".output.dense.")
        found[new] = found.pop(name)
    masks = {"attn.bias": (1, 1, 64, 64), "attn.masked_bias": (),
             "crossattention.bias": (1, 1, 64, 64), "crossattention.masked_bias": ()}  # fmt: skip
    for name, shape in masks.items():
        found[f"decoder.transformer.h.0.{name}"] = np.ones(shape, np.float32)
    for leaf, shape in (("weight", (16, 16)), ("bias", (16,))):
        found[f"encoder.pooler.dense.{leaf}"] = np.ones(shape, np.float32)
    return found


def test_state_dicts_go_there_and_back(tmp_path):
    ours = torch_weights.to_state_dict(variables("one"))
    theirs = ENTRY.export(ours)
    for form in (theirs, older(theirs), ours):
        found = ENTRY.convert(form)
        assert set(found) == set(ours)
        for key, value in ours.items():
            np.testing.assert_array_equal(found[key], value)
    file = tmp_path / "theirs.safetensors"
    torch_weights.save(file, variables("one"), ENTRY.export)
    again = torch_weights.load(file, variables("one"), ENTRY.convert)
    jax.tree.map(np.testing.assert_array_equal, again, variables("one"))
    untied = {**theirs, "decoder.lm_head.weight": theirs["decoder.lm_head.weight"] + 1}
    with pytest.raises(UserError, match=r"lm_head\.weight is not decoder\.transformer\.wte"):
        ENTRY.convert(untied)


def test_encoders_of_another_width_are_projected_and_larger_images_resampled():
    from jaxvision import pretrained

    ours = torch_weights.to_state_dict(variables("one"))
    weights = pretrained.Weights(ENTRY.export(ours), "a file")
    assert ours["enc_to_dec_proj.weight"].shape == (24, 16)
    model = models.create("vit_gpt2", VOCABULARY, **OPTIONS)
    encoder = model.encoder.clone(grid=(2, 3))
    model = model.clone(encoder=encoder)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    like = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    loaded = pretrained.load_into("vit_gpt2", model, weights, like)
    again = torch_weights.to_state_dict(loaded)
    assert again["encoder.pos_embed"].shape == (1, 7, 16)
    assert jax.eval_shape(model.apply, loaded, image).shape == (1, 1, VOCABULARY)
