"""The transformer's blocks against their definitions in NumPy."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from jaxvision.layers.blocks import DropPath, apply_blocks
from jaxvision.layers.transformer import Attention, Mlp, PatchEmbed, TransformerBlock

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 12)), jnp.float32)


def randomised(module, *args, seed=0, **kwargs):
    """The module's parameters, all of them random: zeros would hide mistakes."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
    draw = np.random.default_rng(seed).normal
    return jax.tree.map(lambda s: jnp.asarray(0.5 * draw(size=s.shape), s.dtype), shapes)


def attention(x, params, heads):
    """As timm writes it: qkv -> (b, n, 3, h, d) -> softmax(q k / sqrt(d)) v -> proj."""
    qkv = x @ params["qkv"]["kernel"] + params["qkv"].get("bias", 0)
    q, k, v = qkv.reshape(*x.shape[:2], 3, heads, -1).transpose(2, 0, 3, 1, 4)
    weights = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]), axis=-1)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    return y @ params["proj"]["kernel"] + params["proj"]["bias"]


def mlp(x, params):
    y = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    return y @ params["fc2"]["kernel"] + params["fc2"]["bias"]


def layer_norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    x = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


@pytest.mark.parametrize(("heads", "head_dim", "bias"), [(3, None, True), (2, 5, False)])
def test_attention(heads, head_dim, bias):
    module = Attention(heads, head_dim, qkv_bias=bias)
    variables = randomised(module, X, train=False)
    params = jax.tree.map(np.asarray, variables["params"])
    assert ("bias" in params["qkv"]) == bias
    y = module.apply(variables, X, train=False)
    np.testing.assert_allclose(y, attention(np.asarray(X), params, heads), 1e-4, 1e-4)


def test_attention_dropout_is_none_in_the_mean():
    module = Attention(3, attn_dropout=0.3)
    variables = randomised(module, X, train=False)
    keys = jax.random.split(jax.random.key(1), 1000)
    drawn = jax.jit(
        jax.vmap(lambda k: module.apply(variables, X, train=True, rngs={"dropout": k}))
    )(keys)
    still = module.apply(variables, X, train=False)
    assert float(jnp.abs(drawn[0] - still).max()) > 0.1
    np.testing.assert_allclose(drawn.mean(0), still, atol=0.25)


@pytest.mark.parametrize("init_values", [None, 0.1])
def test_block(init_values):
    module = TransformerBlock(3, mlp_ratio=2.0, init_values=init_values)
    variables = randomised(module, X, train=False)
    params = jax.tree.map(np.asarray, variables["params"])
    names = {"norm1", "attn", "norm2", "mlp"}
    assert set(params) == (names if init_values is None else names | {"ls1", "ls2"})
    gammas = [params[name]["gamma"] if init_values else 1 for name in ("ls1", "ls2")]
    y = np.asarray(X)
    y = y + gammas[0] * attention(layer_norm(y, params["norm1"]), params["attn"], 3)
    y = y + gammas[1] * mlp(layer_norm(y, params["norm2"]), params["mlp"])
    np.testing.assert_allclose(module.apply(variables, X, train=False), y, 1e-4, 1e-4)


def test_block_in_training_drops_and_runs_in_bfloat16():
    module = TransformerBlock(
        3, out_dropout=0.1, attn_dropout=0.1, drop_path=0.5, dtype=jnp.bfloat16
    )
    x = X.astype(jnp.bfloat16)
    variables = randomised(module, x, train=False)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    run = jax.jit(partial(module.apply, train=True))
    one, two = (run(variables, x, rngs={"dropout": jax.random.key(n)}) for n in (0, 1))
    assert one.dtype == jnp.bfloat16
    assert bool(jnp.any(one != two))


def test_drop_path_drops_whole_samples():
    x = jnp.ones((2000, 2, 3))
    y = DropPath(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    per_sample = np.asarray(y).reshape(2000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    assert set(np.unique(per_sample.round(4))) == {0.0, np.float32(1.3333)}
    np.testing.assert_allclose(y.mean(), 1, atol=0.05)
    np.testing.assert_array_equal(DropPath(0.25).apply({}, x, train=False), x)


def test_mlp_and_patch_embed():
    module = Mlp(7)
    variables = randomised(module, X, train=False)
    params = jax.tree.map(np.asarray, variables["params"])
    expected = mlp(np.asarray(X), params)
    np.testing.assert_allclose(module.apply(variables, X, train=False), expected, 1e-4, 1e-4)

    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
    embed = PatchEmbed((2, 3), 5)
    variables = randomised(embed, image)
    kernel, bias = (variables["params"]["proj"][name] for name in ("kernel", "bias"))
    expected = np.tensordot(image[:, 2:4, 3:6], kernel, 3) + bias
    np.testing.assert_allclose(embed.apply(variables, image)[:, 3], expected, 1e-4, 1e-4)
    with pytest.raises(ValueError, match="does not divide"):
        embed.init(jax.random.key(0), image[:, :3])


def test_channels_must_divide_among_heads():
    with pytest.raises(ValueError, match="do not divide among 5 heads"):
        Attention(5).init(jax.random.key(0), X, train=False)


class Blocks(nn.Module):
    """Four equal blocks; how often one was traced is counted."""

    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x, train):
        def act(y):
            TRACED.append(train)
            return jnp.tanh(y)

        block = partial(TransformerBlock, 2, out_dropout=0.2, act=act)
        more = {"scan": self.scan, "remat": self.remat}
        return apply_blocks(self, block, 4, x, train, drop_path=0.3, keep=(1,), **more)


TRACED: list[bool] = []


@pytest.mark.parametrize(
    ("train", "forms"),
    [
        (False, [{"scan": True, "remat": True}]),
        pytest.param(
            True,
            [{"scan": True}, {"remat": True}, {"scan": True, "remat": True}],
            marks=pytest.mark.slow,
        ),
        (True, [{"scan": True, "remat": True}]),
    ],
)
def test_scanning_and_remat_change_no_number(train, forms):
    """Losses and gradients, dropout and stochastic depth included."""
    params = randomised(Blocks(), X, train=False)

    @partial(jax.jit, static_argnums=0)
    def gradient(module, params, x):
        def loss(params):
            last, kept = module.apply(params, x, train, rngs={"dropout": jax.random.key(3)})
            return jnp.square(last).sum() + jnp.square(kept[0]).sum()

        return jax.value_and_grad(loss)(params)

    expected = gradient(Blocks(), params, X)
    for options in forms:
        found = gradient(Blocks(**options), params, X)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), found, expected)


def test_training_traces_a_block_once():
    module = Blocks()
    params = randomised(module, X, train=False)
    times = []
    for train in (True, False):
        TRACED.clear()
        rngs = {"dropout": jax.random.key(0)} if train else None
        jax.make_jaxpr(lambda p: module.apply(p, X, train, rngs=rngs))(params)  # noqa: B023
        times.append(len(TRACED))
    assert times == [1, 4]
