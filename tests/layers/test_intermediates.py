"""Tokens and attention weights are what the network computes, and cost nothing unasked."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.layers.intermediates import _by_number, collected, record

TINY = {"patch_size": 4, "width": 16, "num_heads": 2, "depth": 3}
SWIN = {"width": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 1, 1), "window": 2}
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 8, 12, 3)), jnp.float32)


def drawn(model, image=IMAGE):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    draw = np.random.default_rng(1).normal
    return jax.tree.map(lambda s: jnp.asarray(0.3 * draw(size=s.shape), s.dtype), shapes)


def affine(params, x):
    return x @ params["kernel"] + params["bias"]


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("vit_tiny_patch16_224", 1),
        ("deit_tiny_distilled_patch16_224", 2),
        ("beit_base_patch16_224", 1),
        ("mixer_s16_224", 0),
    ],
)
def test_tokens_are_what_the_head_sees(name, prefix):
    tiny = {k: v for k, v in TINY.items() if k in models.options(name)}
    model = models.create(name, 5, **tiny)
    variables = drawn(model)
    run = jax.jit(lambda v, x: models.intermediates(model, v, x, ("tokens",)))
    (tokens,) = run(variables, IMAGE)["tokens"]
    assert tokens.shape == (2, prefix + 2 * 3, 16)
    params = variables["params"]
    if name.startswith("beit"):
        norm = nn.LayerNorm(epsilon=1e-6)
        pooled = norm.apply({"params": params["fc_norm"]}, tokens[:, 1:].mean(1))
    else:
        pooled = tokens[:, 0] if prefix else tokens.mean(1)
    logits = affine(params["head"], pooled)
    if prefix == 2:
        logits = (logits + affine(params["head_dist"], tokens[:, 1])) / 2
    expected = jax.jit(model.apply)(variables, IMAGE)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_tokens_and_attention_of_swin():
    model = models.create("swin_tiny_patch4_window7_224", 5, **SWIN)
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 64, 64, 3)), jnp.float32)
    variables = drawn(model, image)
    found = models.intermediates(model, variables, image, ("attention", "tokens"))
    (tokens,) = found["tokens"]
    assert tokens.shape == (2, 2 * 2, 64)
    logits = affine(variables["params"]["head"]["fc"], tokens.mean(1))
    np.testing.assert_allclose(logits, model.apply(variables, image), rtol=1e-4, atol=1e-5)
    # Windows of 2x2 on maps of 16, 8, 8, 4 and 2 tokens a side.
    heads = [(2 * (side // 2) ** 2, h, 4, 4) for side, h in zip((16, 8, 8, 4, 2), (1, 2, 2, 1, 1))]
    assert [weights.shape for weights in found["attention"]] == heads
    for weights in found["attention"]:
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_attention_is_what_the_first_block_computes():
    model = models.create("vit_tiny_patch16_224", 5, **TINY, scan=True)
    variables = drawn(model)
    found = models.intermediates(model, variables, IMAGE, ("attention",))["attention"]
    assert len(found) == 3
    params = variables["params"]
    patches = IMAGE.reshape(2, 2, 4, 3, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 48)
    embed = params["patch_embed"]["proj"]
    x = patches @ embed["kernel"].reshape(48, 16) + embed["bias"]
    x = jnp.concatenate([jnp.tile(params["cls_token"], (2, 1, 1)), x], 1) + params["pos_embed"]
    block = params["blocks_0"]
    x = nn.LayerNorm(epsilon=1e-6).apply({"params": block["norm1"]}, x)
    q, k, _ = jnp.moveaxis(affine(block["attn"]["qkv"], x).reshape(2, 7, 3, 2, 8), 2, 0)
    expected = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * 8**-0.5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_tokens_leave_a_training_program_scanned_and_can_be_differentiated():
    model = models.create("vit_tiny_patch16_224", 5, **TINY, scan=True, dropout=0.1)
    variables = drawn(model)
    rngs = {"dropout": jax.random.key(0)}

    def with_tokens(params):
        state = {"params": params}
        logits, changed = model.apply(state, IMAGE, train=True, rngs=rngs, mutable=["tokens"])
        return jnp.square(collected(changed, "tokens")[0]).mean(), logits

    apply = jax.jit(partial(model.apply, train=True, rngs=rngs))
    gradient, logits = jax.jit(jax.grad(with_tokens, has_aux=True))(variables["params"])
    np.testing.assert_allclose(logits, apply(variables, IMAGE), rtol=1e-5, atol=1e-6)
    assert jnp.abs(gradient["blocks_0"]["attn"]["qkv"]["kernel"]).max() > 0
    options = {"train": True, "rngs": rngs}
    (tokens,) = models.intermediates(model, variables, IMAGE, ("tokens",), **options)["tokens"]
    np.testing.assert_allclose(jnp.square(tokens).mean(), with_tokens(variables["params"])[0], 1e-5)


def test_what_is_not_asked_for_is_in_no_program(monkeypatch):
    model = models.create("vit_tiny_patch16_224", 5, **TINY)
    variables = drawn(model)

    def program():
        return str(jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, IMAGE))

    recorded = program()
    monkeypatch.setattr("jaxvision.models.backbones.vit.record", lambda *_: None)
    monkeypatch.setattr("jaxvision.layers.transformer.asked", lambda *_: False)
    assert program() == recorded


def test_a_network_without():
    model = models.create("mixer_s16_224", 5, patch_size=4, width=16, depth=1)
    with pytest.raises(UserError, match=r"MlpMixer has no attention; .* gives tokens\."):
        models.intermediates(model, drawn(model), IMAGE, ("attention",))
    model = models.create("lenet5", 5)
    image = jnp.zeros((1, 32, 32, 1))
    with pytest.raises(UserError, match=r"has no tokens; .* gives none\."):
        models.intermediates(model, drawn(model, image), image, ("tokens",))


def test_ones_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, image, train=False):
            record(self, "means", image.mean((1, 2)))
            return image

    (found,) = models.intermediates(Net(), {}, IMAGE, ("means",))["means"]
    np.testing.assert_allclose(found, IMAGE.mean((1, 2)), rtol=1e-6)
    assert Net().init(jax.random.key(0), IMAGE) == {}


def test_layers_come_in_their_order():
    names = [f"layers_0/blocks_{index}/attn" for index in (0, 1, 2, 10, 11)]
    assert sorted(sorted(names), key=_by_number) == names
