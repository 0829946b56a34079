"""Pictures of analysis: gradients against captum's, maps against loops and hand-made networks."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parity.cases import CASES, GOLDEN, LOGITS
from parity.deterministic import image as draw_image
from parity.deterministic import sample, weights

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.inspect import attention, draw, features, patches
from jaxvision.interop import torch_weights
from jaxvision.layers.convolution import Conv2d
from jaxvision.metrics import ConfusionMatrix
from jaxvision.ops.pooling import max_pool2d

CAPTUM = dict(np.load(GOLDEN.parent / "saliency.npz"))


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def initialised(model, image):
    """Variables for one image, drawn without a program to compile."""
    image = jnp.asarray(image)[None]
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(leaf.shape)
        size = np.sqrt(6 / max(1, np.prod(leaf.shape[:-1])))
        return jnp.asarray(size * rng.uniform(-1, 1, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
    ("name", "unit", "layer", "channel"),
    [
        ("vgg11", "unit", "features_11", 7),
        ("resnet18", "logit", "", 3),
        pytest.param("vgg11", "logit", "", 3, marks=pytest.mark.slow),
    ],
)
def test_saliency_is_captums(name, unit, layer, channel):
    case = CASES[name]
    shapes = json.loads(str(CAPTUM[f"{name}_shapes"]))
    state = {key: weights(key, shape) for key, shape in shapes.items()}
    x = jnp.asarray(draw_image(case.image, CAPTUM[f"{name}_draw"]).transpose(0, 2, 3, 1)[0])
    model = models.create(name, case.classes, **case.options)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), x[None], train=False))
    variables = torch_weights.to_variables(state, like)
    if layer:  # captum's unit is behind the ReLU, whose strongest place is the convolution's
        assert features.activations(model, variables, x, layer)[..., channel].max() > 0

    @jax.jit
    def every(variables, x):
        return [
            features.saliency(model, variables, x, layer, channel, rule) for rule in features.RULES
        ]

    for rule, found in zip(features.RULES, every(variables, x)):
        expected = CAPTUM[f"{name}_{unit}_{rule}"]
        found = sample(np.asarray(found).transpose(2, 0, 1), LOGITS)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


class Kept(nn.Module):
    """ReLUs that were looked up long ago, one of them behind a jit and one that ends at 6."""

    act = staticmethod(nn.relu)

    @nn.compact
    def __call__(self, image, train=False):
        x = self.act(image.sum((1, 2, 3)) - 1)
        x = jax.jit(nn.relu)(2 * x - 8)
        return jnp.stack([-x, nn.relu6(x)], -1)


@pytest.mark.parametrize(
    ("total", "channel", "expected"),
    [
        (7.0, 0, {"gradient": -2, "deconvnet": 0, "guided": 0}),
        (7.0, 1, {"gradient": 2, "deconvnet": 2, "guided": 2}),
        (4.0, 1, {"gradient": 0, "deconvnet": 2, "guided": 0}),
        (0.0, 1, {"gradient": 0, "deconvnet": 2, "guided": 0}),
        (9.0, 1, {"gradient": 0, "deconvnet": 2, "guided": 0}),
    ],
)
def test_rules_reach_every_relu(total, channel, expected):
    image = jnp.full((1, 1, 1), total)
    for rule, value in expected.items():
        found = features.saliency(Kept(), {}, image, channel=channel, rule=rule)
        assert float(found[0, 0, 0]) == value, rule


def test_blocks_of_transformers_can_be_looked_into():
    model = models.create("vit_tiny_patch16_224", 3, **TINY, depth=2)
    image = jnp.asarray(np.random.default_rng(0).random((8, 8, 3)), jnp.float32)
    variables = initialised(model, image)
    shapes = features.outputs(model, variables, image.shape)
    assert shapes["blocks_1/mlp/fc1"] == (5, 64)
    _, first = features.tapped(model, variables, image[None], "blocks_0/norm2")
    _, second = features.tapped(model, variables, image[None], "blocks_1/norm2")
    assert first.shape == second.shape == (1, 5, 16)
    assert float(jnp.abs(first - second).max()) > 0.01


def test_unknown_rules_and_layers_name_the_nearest():
    model = models.create("resnet8_cifar", 4)
    image = jnp.zeros((8, 8, 1))
    variables = initialised(model, image)
    with pytest.raises(UserError, match=r"rule 'guide'\. Did you mean 'guided'"):
        features.saliency(model, variables, image, rule="guide")
    see = lambda layer: jax.eval_shape(  # noqa: E731
        lambda x: features.activations(model, variables, x, layer), image
    )
    with pytest.raises(UserError, match=r"layer 'layer1_0/conv3'\. Did you mean 'layer1_0/conv"):
        see("layer1_0/conv3")
    with pytest.raises(UserError, match=r"'linear' puts out \(4,\)"):
        see("linear")
    with pytest.raises(UserError, match="Unknown convolution 'linear'"):
        features.filters(variables, "linear")
    with pytest.raises(UserError, match="on 16 channels"):
        features.filters(variables, "layer1_0/conv1")
    with pytest.raises(UserError, match="no channel 16; the layer has 0 to 15"):
        features.channel_tiles(np.zeros((2, 2, 16)), [3, 16])


def test_layers_and_defaults():
    model = models.create("resnet8_cifar", 4, remat=True)
    variables = initialised(model, jnp.zeros((8, 8, 1)))
    shapes = features.outputs(model, variables, (8, 8, 1))
    assert shapes["conv1"] == (8, 8, 16)
    assert shapes["layer3_0"] == (2, 2, 64)
    assert shapes["linear"] == (4,)
    assert features.default_layer(shapes, first=True) == "conv1"
    assert features.default_layer(shapes) == "layer3_0"
    with pytest.raises(UserError, match="no maps"):
        features.default_layer({"fc": (10,), "pool": (1, 1, 8), "": (4, 4, 2)})


def test_filters_and_activations():
    kernel = uniform(3, 3, 3, 5)
    kernel[..., 4] = 2.0  # of one colour: black, and no division by zero
    variables = {"params": {"conv": {"kernel": kernel}}}
    tiles = features.filters(variables, "conv")
    assert tiles.shape == (5, 3, 3, 3)
    assert (tiles[:4].min((1, 2, 3)) == 0).all()
    assert (tiles[:4].max((1, 2, 3)) == 255).all()
    assert (tiles[4] == 0).all()
    lightest = np.unravel_index(kernel[..., 2].argmax(), (3, 3, 3))
    assert tiles[2][lightest] == 255
    grey = features.filters({"params": {"conv": {"kernel": kernel[:, :, :1]}}}, "conv")
    assert (grey[..., 0] == grey[..., 2]).all()

    model = models.create("lenet5", 3)
    image = uniform(32, 32, 1)
    variables = initialised(model, image)
    apply = lambda x: features.activations(model, variables, x, "features_0")  # noqa: E731
    found = jax.jit(apply)(image)
    flat = variables["params"]["features_0"]
    window = (image[7:12, 4:9, 0, None] * flat["kernel"][:, :, 0]).sum((0, 1)) + flat["bias"]
    np.testing.assert_allclose(found[7, 4], window, rtol=1e-5, atol=1e-6)
    tiles = features.channel_tiles(np.asarray(found), [2, 0])
    assert tiles.shape == (2, 28, 28, 3)


class TwoMaps(nn.Module):
    """Channel 0 is the image, channel 1 its negative; logits are differences of their means."""

    @nn.compact
    def __call__(self, image, train=False):
        maps = Signs(name="maps")(image)
        means = maps.mean((1, 2))
        return jnp.stack([means[:, 0] - 2 * means[:, 1], means[:, 1], -means.sum(-1)], -1)


class Signs(nn.Module):
    def __call__(self, image):
        return nn.relu(jnp.concatenate([image, -image], -1))


def test_grad_cam_of_a_network_whose_answer_is_known():
    image = jnp.asarray([[1.0, -3.0], [0.5, 0.0]])[..., None]
    cam = jax.jit(lambda label: features.grad_cam(TwoMaps(), {}, image, "maps", label))
    # Weights of the channels are 1/4 and -2/4: 1, 0.5 and, cut off, -6.
    np.testing.assert_allclose(cam(0), [[1, 0], [0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(cam(1), [[0, 1], [0, 0]], atol=1e-6)
    assert (cam(2) == 0).all()
    with pytest.raises(UserError, match=r"'' puts out \(3,\), which is no map"):
        features.grad_cam(TwoMaps(), {}, image, "", 0)


class Coarse(nn.Module):
    @nn.compact
    def __call__(self, image, train=False):
        return max_pool2d(Signs(name="maps")(image), 2)


def test_grad_cam_is_enlarged_and_of_classifiers():
    model = models.create("resnet8_cifar", 4)
    image = jnp.asarray(uniform(16, 12, 1))
    variables = initialised(model, image)
    explain = lambda x, label: features.grad_cam(model, variables, x, "layer3_0", label)  # noqa: E731
    found = jax.jit(explain)(image, 1)
    assert found.shape == (16, 12)
    assert found.min() >= 0
    assert found.max() == pytest.approx(1, abs=1e-6)
    with pytest.raises(UserError, match="of classifiers"):
        features.grad_cam(Coarse(), {}, image, "maps", 0)


# -- attention ------------------------------------------------------------------------------------

TINY = {"patch_size": 4, "width": 16, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "prefix", "depth"),
    [
        ("vit_tiny_patch16_224", 1, 11),
        ("deit_tiny_distilled_patch16_224", 2, 2),
        ("beit_base_patch16_224", 1, 2),
    ],
)
def test_attention_and_rollout(name, prefix, depth):
    model = models.create(name, 3, **TINY, depth=depth, scan=True)
    image = jnp.asarray(uniform(8, 12, 3))
    variables = initialised(model, image)
    maps = jax.jit(lambda x: attention.attention_maps(model, variables, x))(image)
    tokens = prefix + 2 * 3
    assert [value.shape for value in maps] == [(2, tokens, tokens)] * depth
    for value in maps:
        np.testing.assert_allclose(value.sum(-1), 1, rtol=1e-5)

    joint = attention.attention_rollout(maps)
    expected = np.eye(tokens)
    for value in np.asarray(maps, np.float64):
        mixed = np.zeros((tokens, tokens))
        for head in value:
            mixed += head / len(value)
        mixed += np.eye(tokens)
        for row in range(tokens):
            mixed[row] /= mixed[row].sum()
        expected = mixed @ expected
    np.testing.assert_allclose(joint, expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(joint.sum(-1), 1, rtol=1e-5)

    laid_out = attention.over_patches(joint, model, image.shape)
    assert laid_out.shape == (2, 3)
    assert laid_out[1, 0] == joint[0, prefix + 3]
    assert attention.over_patches(maps[0], model, image.shape).shape == (2, 2, 3)


def test_attention_of_mean_pooling_windows_and_none():
    pooled = models.create("vit_tiny_patch16_224", 3, **TINY, depth=1, pool="mean")
    weights = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 6)))
    found = attention.over_patches(weights, pooled, (8, 12, 3))
    np.testing.assert_allclose(found.ravel(), weights.mean(0), rtol=1e-6)
    with pytest.raises(UserError, match="4 tokens are not 2x3 patches"):
        attention.over_patches(weights[:4, :4], pooled, (8, 12, 3))

    small = {"width": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window": 4}
    swin = models.create("swin_tiny_patch4_window7_224", 3, **small)
    resnet = models.create("resnet8_cifar", 3)
    for model, side, message in (
        (swin, 64, "within windows, so there is no map of the whole image"),
        (swin, 16, "within windows"),  # one window in every stage
        (resnet, 16, "ResNetCifar has no attention"),
    ):
        image = jnp.zeros((side, side, 3))
        variables = jax.eval_shape(model.init, jax.random.key(0), image[None])
        with pytest.raises(UserError, match=message):
            jax.eval_shape(partial(attention.attention_maps, model), variables, image)


# -- patches --------------------------------------------------------------------------------------


class Uneven(nn.Module):
    """Strides, dilation, padding on one side, pooling with padding and a shortcut."""

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.relu(Conv2d(4, 3, stride=2, name="conv1")(image))
        x = max_pool2d(x, 3, stride=2, padding=1)
        y = nn.relu(Conv2d(4, (3, 1), dilation=2, name="conv2")(x))
        x = Conv2d(5, 3, padding=0, name="conv3")(x + y)
        return x.mean((1, 2))


def test_a_patch_holds_exactly_the_pixels_that_matter():
    model, shape = Uneven(), (49, 38, 2)
    image = jnp.asarray(uniform(*shape))
    variables = initialised(model, image)
    fields = patches.influence(model, variables, shape, "conv3")
    apply = jax.jit(lambda x: features.activations(model, variables, x, "conv3"))
    value = apply(image)
    assert [len(field) for field in fields] == list(value.shape[:2])
    # By hand: 3, then 3 + 2 * 2 = 7 with 4 between places, then (up to) 4 * 4 and 2 * 4 more.
    assert (fields[0][4] == [4 * 4 - 11 + 0, 4 * 4 + 20]).all()
    assert (fields[1][4] == [4 * 4 - 3, 4 * 4 + 12]).all()
    assert (fields[0][0] == [0, 20]).all()
    changed = jnp.asarray(uniform(*shape, seed=1)) * 100
    for place in [(0, 0), (4, 4), (9, 6), (2, 3), (value.shape[0] - 1, value.shape[1] - 1)]:
        (top, bottom), (left, right) = (f[at] for f, at in zip(fields, place))
        inside = np.zeros((*shape[:2], 1), bool)
        inside[top:bottom, left:right] = True
        outside_changed = apply(jnp.where(inside, image, changed))
        np.testing.assert_allclose(outside_changed[place], value[place], rtol=1e-5, atol=1e-6)
        # Each edge matters: to be free of where maxima lie, by what becomes NaN.
        for edge in (
            np.s_[top, left:right], np.s_[bottom - 1, left:right],
            np.s_[top:bottom, left], np.s_[top:bottom, right - 1],
        ):  # fmt: skip
            assert jnp.isnan(apply(image.at[edge].set(jnp.nan))[place]).all()


def test_the_strongest_places_are_those_of_a_loop():
    model = models.create("resnet8_cifar", 3)
    images = uniform(23, 12, 12, 1)
    variables = initialised(model, images[0])
    ids = np.concatenate([np.arange(23) * 10, [-1]])  # the last one is padding
    padded = np.concatenate([images, 1000 + images[:1]])
    batches = [(padded[i : i + 8], ids[i : i + 8]) for i in (0, 8, 16)]
    chosen = [5, 2]
    found = patches.top_patches(model, variables, batches, "layer2_0/conv1", chosen)
    apply = lambda x: features.activations(model, variables, x, "layer2_0/conv1")  # noqa: E731
    maps = np.asarray(jax.jit(jax.vmap(apply))(images))
    for row, channel in enumerate(chosen):
        strongest = maps[..., channel].max((1, 2))
        order = np.argsort(-strongest)[:9]
        np.testing.assert_array_equal(found.images[row], ids[order])
        np.testing.assert_allclose(found.values[row], strongest[order], 1e-5, 1e-5)
        for n, index in enumerate(order):
            place = np.unravel_index(maps[index, ..., channel].argmax(), maps.shape[1:3])
            np.testing.assert_array_equal(found.places[row, n], place)
    few = patches.top_patches(model, variables, batches[:1], "conv1", [0], count=9)
    assert (few.images[0, 8:] == -1).all()
    assert np.isneginf(few.values[0, 8:]).all()
    with pytest.raises(UserError, match="no channel 99"):
        patches.top_patches(model, variables, batches, "conv1", [99])
    with pytest.raises(UserError, match="no map"):
        patches.top_patches(model, variables, batches, "linear", [0])


def test_cutting_fills_what_lies_beyond_the_image():
    image = np.arange(36, dtype=np.uint8).reshape(6, 6, 1)
    field = np.array([[0, 2], [0, 3], [2, 5], [4, 6]])
    np.testing.assert_array_equal(patches.cut(image, (2, 1), (field, field)), image[2:5, 0:3])
    corner = patches.cut(image, (0, 3), (field, field))[..., 0]
    np.testing.assert_array_equal(corner, [[128] * 3, [4, 5, 128], [10, 11, 128]])


# -- drawing --------------------------------------------------------------------------------------


def test_colours_grow_lighter():
    for scale in ("viridis", "magma"):
        found = draw.colours(np.linspace(0, 1, 64), scale)
        lightness = found @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(lightness) > 0).all()
    beyond = draw.colours(np.array([-1.0, np.nan, 2.0]))
    np.testing.assert_array_equal(beyond, draw.colours(np.array([0.0, 0.0, 1.0])))
    assert (draw.stretched(np.full((2, 2), 3.0)) == 0).all()


def test_gradients_overlays_and_grids():
    gradient = uniform(8, 8, 3) * 1e-9
    assert draw.gradient_picture(gradient).std() > 30
    assert (draw.gradient_picture(np.zeros((4, 4, 1))) == 128).all()
    assert draw.gradient_picture(gradient, signed=False).shape == (8, 8, 3)
    image = np.full((6, 6, 1), 100, np.uint8)
    shown = draw.heat(image, np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(shown[0, 5], np.round(40 + 0.6 * np.array([253, 231, 37])))
    tiles = np.zeros((5, 2, 3, 3), np.uint8)
    assert draw.grid(tiles).shape == (2 * 3 + 1, 3 * 4 + 1, 3)
    assert (draw.grid(tiles)[4:6, 9:12] == 255).all()
    assert draw.resized(tiles[0], (4, 5), smooth=True).shape == (4, 5, 3)


def test_confusion_matrices_of_any_size():
    counts = np.array([[90, 10, 0], [0, 1200, 0], [0, 0, 0]])
    matrix = ConfusionMatrix(counts=counts, class_names=("cat", "dog", "none at all"))
    for percent in (False, True):
        picture = draw.confusion_matrix(matrix, percent)
        colours = {tuple(c) for c in picture.reshape(-1, 3)}
        assert (8, 48, 107) in colours  # all dogs are dogs
    many = ConfusionMatrix(counts=np.eye(500, dtype=int))
    assert draw.confusion_matrix(many).shape[0] >= 1000
