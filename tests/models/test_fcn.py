"""FCN beyond its reference: what initialises what, sizes, encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.models.segmentation.fcn import FCNPyramid
from jaxvision.pretrained import load_state

SMALL = {"width": 0.03125, "hidden": 6}
RNG = np.random.default_rng(0)


def made(name, classes=5, shape=(1, 8, 8, 3), **options):
    """(model, variables with a value of its own in each leaf)."""
    model = models.create(name, classes, **options)
    image = jnp.zeros(shape)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    return model, jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape), p.dtype), like)


def loaded(name, state, **options):
    model, variables = made(name, **SMALL, **options)
    entry = models.variant(name)
    ours = load_state(entry, model, dict(state), variables, "the weights", fine_tune=True)
    return variables["params"], ours["params"]


def same(one, two):
    return jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), one, two))


def test_vgg16_initialises_all_but_the_scores():
    # VGG-16 of FCN's channels, by torchvision's names.
    fcn = torch_weights.to_state_dict(made("fcn32s", **SMALL)[1])
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    layers = [f"{s}.{n}" for s, depth in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, depth + 1)]
    vgg = {
        f"features.{index}.{leaf}": fcn[f"conv{layer}.{leaf}"]
        for index, layer in zip(indices, layers, strict=True)
        for leaf in ("weight", "bias")
    }
    for index, layer in (("0", "fc6"), ("3", "fc7")):
        vgg[f"classifier.{index}.weight"] = fcn[f"{layer}.weight"].reshape(6, -1)
        vgg[f"classifier.{index}.bias"] = fcn[f"{layer}.bias"]
    vgg |= {"classifier.6.weight": np.zeros((1000, 6)), "classifier.6.bias": np.zeros(1000)}
    fresh, ours = loaded("fcn8s", vgg)
    state = torch_weights.to_state_dict({"params": ours})
    for name, value in state.items():
        if name.startswith(("conv", "fc")):
            np.testing.assert_array_equal(value, fcn[name])
    assert len([n for n in state if n.startswith(("conv", "fc"))]) == 30
    for layer in ("score_fr", "score_pool3", "upscore8"):
        assert same(fresh[layer], ours[layer])


def test_coarser_networks_initialise_finer_ones():
    coarse = torch_weights.to_state_dict(made("fcn32s", **SMALL)[1])
    fresh, ours = loaded("fcn16s", coarse)
    assert np.array_equal(ours["score_fr"]["bias"], coarse["score_fr.bias"])
    assert same(fresh["upscore2"], ours["upscore2"])
    assert same(fresh["score_pool4"], ours["score_pool4"])
    middle = torch_weights.to_state_dict({"params": ours})
    fresh, ours = loaded("fcn8s", middle)
    assert np.array_equal(ours["score_pool4"]["bias"], middle["score_pool4.bias"])
    assert same(fresh["upscore8"], ours["upscore8"])
    assert same(fresh["score_pool3"], ours["score_pool3"])


class Means(nn.Module):
    """An encoder without parameters."""

    feature_strides = (8, 16, 32)

    @nn.compact
    def __call__(self, image, train):
        return tuple(nn.avg_pool(image, (n, n), (n, n)) for n in (8, 16, 32))


def test_scores_start_at_zero_and_upsamplings_bilinear():
    model = FCNPyramid(3, Means(name="encoder"))
    params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    np.testing.assert_array_equal(params["score32"]["kernel"], 0)
    np.testing.assert_array_equal(params["score8"]["kernel"], 0)
    line = np.array([0.25, 0.75, 0.75, 0.25])
    for layer in ("upscore32", "upscore16"):
        np.testing.assert_allclose(params[layer]["kernel"][..., 0, 0], line[:, None] * line)
    assert params["upscore8"]["kernel"].shape == (16, 16, 3, 3)


def test_upsamplings_carry_scores_to_the_image():
    # Scores that are the same everywhere stay so, away from the border.
    model = FCNPyramid(2, Means(name="encoder"))
    image = jnp.zeros((1, 120, 100, 3))
    variables = model.init(jax.random.key(0), image)
    params = variables["params"]
    params["score32"]["bias"] = jnp.array([3.0, -1.0])
    params["score16"]["bias"] = jnp.array([0.5, 0.0])
    logits = model.apply({"params": params}, image)
    assert logits.shape == (1, 120, 100, 2)
    inner = logits[0, 40:88, 40:88].reshape(-1, 2)
    np.testing.assert_allclose(inner, np.broadcast_to([3.5, -1.0], inner.shape), atol=1e-5)


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("size", [(1, 1), (37, 64), (500, 375)])
def test_keeps_any_size(name, size):
    model = models.create(name, 5, **SMALL)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert logits.shape == (1, *size, 5)


@pytest.mark.parametrize(
    ("encoder", "size"),
    [("resnet18", (33, 47)), ("vgg11_bn", (64, 40)), ("mobilenet_v2", (50, 31))],
)
def test_pyramid_stands_on_any_encoder(encoder, size):
    model = models.create("fcn8s_resnet18", 5, encoder=encoder)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    assert logits.shape == (1, *size, 5)


def test_pyramid_says_which_strides_it_lacks():
    model = models.create("fcn8s_resnet18", 5, encoder_options={"output_stride": 8})
    with pytest.raises(UserError, match="FCN needs an encoder with a map of stride 16"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
