"""ViT and GPT-2 beside transformers: logits, and what `generate` finds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.decoding import CASES, GOLDEN, OPTIONS, SETTINGS, VOCABULARY, images, said, state

from jaxvision import models
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
