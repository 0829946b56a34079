"""Every registered network applies; names, options and images that do not fit are named."""

import copy
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import models
from jaxvision.errors import UserError
from jaxvision.interop.torch_weights import torch_name
from jaxvision.models.segmentation.unet import with_aliases, without_aliases

# One network of each module: what is true of its options is true of all its variants.
EVERY = {models.variant(name).module: name for name in reversed(models.names())}.values()
# Those whose output, or a map of it, is one score a class.
FAMILIES = [name for name in EVERY if models.variant(name).role in ("backbones", "segmentation")]
# Depths and widths at which a network is traced in a second; others keep the published ones.
SHALLOW = {"encoder_options": {"depths": (1, 1, 1, 1)}}
SMALL = {
    "beit_base_patch16_224": {"depth": 2, "width": 24, "num_heads": 2},
    "deit_base_distilled_patch16_224": {"depth": 2, "width": 24, "num_heads": 2},
    "densenet100_k12_bc_cifar10": {"depths": (1, 1, 1)},
    "deconvnet": {"width": 0.0625, "hidden": 8},
    "deeplabv3_resnet101": SHALLOW,
    "deeplabv3plus_resnet101": SHALLOW,
    "dilated_vgg16": {"width": 0.0625, "hidden": 8},
    "efficientnet_b0": {"depth_mult": 0.25},
    "espnet": {"depths": (1, 1)},
    "fcn16s": {"width": 0.0625, "hidden": 8},
    "fcn8s_resnet18": SHALLOW,
    "legacy_senet154": {"depths": (1, 1, 1, 1)},
    "legacy_xception": {"middle": 1},
    "mixer_b16_224": {"depth": 2, "width": 24},
    "mobilenet_v2": {
        "stages": ((1, 16, 1, 1), (6, 24, 1, 2), (6, 32, 1, 2), (6, 64, 2, 2), (6, 160, 1, 2))
    },
    "mobilenet_w1": {"depths": (1, 1, 1, 1, 1)},
    "nasnet_4a1056": {"cells": 1},
    "preresnet110_cifar10": {"depth": 1},
    "resnet101": {"depths": (1, 1, 1, 1)},
    "resnet110_cifar": {"depth": 8, "width": 4},
    "segnet": {"width": 0.0625},
    "shufflenet_g1_w1": {"depths": (1, 2, 1)},
    "shufflenet_v2_x0_5": {"depths": (1, 2, 1)},
    "swin_base_patch4_window12_384": {"depths": (1, 2, 1, 1), "width": 12},
    "unet": {"depth": 2, "width": 4},
    "unet_resnet101": SHALLOW,
    "upernet_beit_base": {
        "encoder_options": {"depth": 4, "width": 24, "num_heads": 2, "out_blocks": (0, 1, 2, 3)}
    },
    "vnet": {"depths": (1,) * 5, "up_depths": (1,) * 4},
}


def small(name, classes=1000, **options):
    return models.create(name, classes, **SMALL.get(name, {}), **options)


def having(option):
    return [name for name in FAMILIES if option in models.options(name)]


def shape_of(name):
    return (2, *models.variant(name).input_shape)


def is_classifier(name):
    return models.variant(name).role == "backbones"


def variables_of(model, image):
    """Random variables, made without compiling the model's own initialisation."""
    rng = np.random.default_rng(0)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return jax.tree.map(lambda p: jnp.asarray(abs(rng.normal(0, 0.1, p.shape)), p.dtype), like)


def traced(model, shape):
    """What is returned and the variables, by shape, without running anything."""
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), image
    )


@functools.cache
def evaluated(name):
    """What a small network of seven classes returns in evaluation, and its variables, by shape.

    The image has two channels, for which no network was published.
    """
    return traced(small(name, 7), (*shape_of(name)[:-1], 2))


@functools.cache
def trained(name):
    """What it returns in training, in bfloat16."""

    def apply(key, variables, image):
        model, rngs = small(name, 7, dtype=jnp.bfloat16), {"dropout": key}
        return model.apply(variables, image, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    image = jax.ShapeDtypeStruct((*shape_of(name)[:-1], 2), jnp.float32)
    return jax.eval_shape(apply, jax.random.key(0), evaluated(name)[1], image)


def layers(variables):
    """The reference's names of the variables."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {torch_name("/".join(part.key for part in path)) for path, _ in leaves}


def classifies(name, variables):
    """Whether there are variables of the layers whose outputs are the classes."""
    classifier = tuple(layer + "." for layer in models.variant(name).classifier)
    return any(layer.startswith(classifier) for layer in layers(variables))


def shape_returned(model, shape):
    return traced(model, shape)[0].shape


def test_names():
    assert models.names() == sorted(models.names())
    assert models.names("vgg11*") == ["vgg11", "vgg11_bn", "vgg11_lrn"]
    assert models.list("vit_m*") == ["vit_mnist"]
    assert models.list is models.names
    assert models.names("nothing") == []
    with pytest.raises(AttributeError):
        models.lists  # noqa: B018


def test_unknown_names_and_options_come_with_the_nearest():
    with pytest.raises(UserError, match=r"'resnet21_cifar'.*'resnet20_cifar'"):
        models.create("resnet21_cifar")
    with pytest.raises(UserError, match=r"option of model 'lenet5' 'dtypes'.*'dtype'"):
        models.create("lenet5", dtypes=None)
    with pytest.raises(UserError, match="option of model"):
        models.create("lenet5", parent=None)
    with pytest.raises(UserError, match=r"'num_class'\. Did you mean 'num_classes'\?"):
        models.create("lenet5", num_class=3)
    with pytest.raises(UserError, match=r"pretrained\.create\('lenet5', \.\.\.\)"):
        models.create("lenet5", pretrained=True)


def test_wrong_values_of_options():
    image = jnp.zeros((1, 32, 32, 3))
    for depth, near in ((21, 20), (2, 8), (9, 8), (1200, 1202)):
        with pytest.raises(UserError, match=f"depth={depth} is not 6n .* {near} is"):
            models.create("resnet20_cifar", depth=depth).init(jax.random.key(0), image)
    with pytest.raises(UserError, match=r"activation 'gleu'.*'gelu'"):
        models.create("vit_mnist", activation="gleu").init(jax.random.key(0), image)


def test_small_networks_are_representatives():
    assert not SMALL.keys() - set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_every_family_says_where_it_comes_from(name):
    entry = models.variant(name)
    assert entry.reference
    assert "http" in entry.paper
    assert entry.first
    assert entry.module.__doc__


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_applies(name, train):
    # By shape: numbers are compared with the references in test_parity.py.
    batch, *size, _ = shape_of(name)
    found = trained(name) if train else evaluated(name)[0]
    for logits in found.values() if isinstance(found, dict) else [found]:
        if is_classifier(name):
            assert logits.shape == (batch, 7)
        else:
            assert logits.shape == (batch, *size, 7)


@pytest.mark.parametrize("name", [n for n in FAMILIES if is_classifier(n)])
def test_no_classes_give_pooled_features(name):
    features, variables = traced(small(name, 0), shape_of(name))
    batch, width = features.shape
    assert batch == 2
    assert width > 7
    assert not classifies(name, variables)


@pytest.mark.parametrize("name", [n for n in FAMILIES if not is_classifier(n)])
def test_no_classes_give_maps(name):
    features, variables = traced(small(name, 0), shape_of(name))
    assert features.shape[0] == 2
    assert features.ndim == len(shape_of(name))
    assert not classifies(name, variables)


@pytest.mark.parametrize("name", EVERY)
def test_inputs_are_what_a_network_is_called_with(name):
    entry = models.variant(name)
    called = inspect.signature(entry.module.__call__).parameters
    # The last ones are what a detector and what reconstructs are trained with.
    training = ("self", "train", "targets", "kept", "hidden", "mask_token")
    assert entry.inputs == tuple(n for n in called if n not in training)
    assert inspect.Parameter.empty not in [called[n].default for n in entry.inputs[1:]]


def test_roles_are_folders():
    assert models.variant("resnet50").role == "backbones"
    assert models.variant("unet").role == "segmentation"
    for name in models.names():
        entry = models.variant(name)
        assert f".{entry.role}." in entry.module.__module__


def test_ends():
    assert models.variant("resnet50").ends == ("classes", "features", "pyramid")
    assert models.variant("unet").ends == ("classes", "features")
    assert models.variant("vit_mnist").ends == ("classes", "features", "pyramid", "tokens")


@pytest.fixture
def registered(monkeypatch):
    """Whatever a test registers is forgotten after it."""
    monkeypatch.setattr(models, "_REGISTRY", copy.deepcopy(models._REGISTRY))


class Blur(nn.Module):
    """Without classes: as a generator is."""

    width: int = 3

    def __call__(self, image, train=False):
        return image[:, :: self.width]


def test_a_network_of_ones_own(registered):
    @models.register("my_net", input_shape=(8, 8, 1), options={"width": 2}, role="segmentation")
    class MyNet(nn.Module):
        num_classes: int
        width: int = 1

        def __call__(self, image, train=False):
            return jnp.zeros((*image.shape[:-1], self.num_classes * self.width))

    assert "my_net" in models.names()
    entry = models.variant("my_net")
    assert (entry.module, entry.role, entry.inputs) == (MyNet, "segmentation", ("image",))
    assert models.create("my_net", 3) == MyNet(3, width=2)
    assert shape_returned(models.create("my_net", 3), (1, 8, 8, 1)) == (1, 8, 8, 6)
    models.register("my_net")(MyNet)  # a file imported again
    assert models.variant("my_net").role == "backbones"
    with pytest.raises(UserError, match="a model 'my_net' already"):
        models.register("my_net")(Blur)
    with pytest.raises(UserError, match="a model 'resnet50' already"):
        models.register("resnet50")(Blur)
    with pytest.raises(UserError, match=r"'vit_b_16' is another name of 'vit_base_patch16_224'"):
        models.register("vit_b_16")
    with pytest.raises(UserError, match=r"field of a model 'input_shapes'.*'input_shape'"):
        models.register("other", input_shapes=())


def test_a_network_without_classes(registered):
    models.register("blur")(Blur)
    assert models.variant("blur").ends == ()
    assert models.create("blur", width=4) == Blur(4)
    for count, end in ((3, "classes"), (0, "features")):
        with pytest.raises(UserError, match=f"model with {end} 'blur'"):
            models.create("blur", count)
    with pytest.raises(UserError, match="model with a feature pyramid 'blur'"):
        models.create("blur", features_only=True)


def test_a_network_may_declare_its_ends(registered):
    @models.register("detector")
    class Detector(nn.Module):
        ENDS = ("classes",)
        num_classes: int = 80

    assert models.create("detector", 3) == Detector(3)
    with pytest.raises(UserError, match="model with features 'detector'"):
        models.create("detector", 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_of_first_and_last_layers_exist(name):
    found = layers(evaluated(name)[1])
    entry = models.variant(name)
    optional = tuple(entry.auxiliary)
    for layer in (entry.first, *entry.classifier):
        assert layer.startswith(optional) or f"{layer}.weight" in found


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16(name):
    for leaf in jax.tree.leaves(evaluated(name)[1]):
        assert leaf.dtype == jnp.float32
    for output in jax.tree.leaves(trained(name)):
        assert output.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", having("features_only"))
def test_feature_pyramids(name):
    levels = models.feature_info(name, **SMALL.get(name, {}))
    strides = [level.stride for level in levels]
    assert strides == sorted(strides)
    maps, variables = traced(small(name, features_only=True), shape_of(name))
    assert tuple(x.shape[-1] for x in maps) == tuple(level.channels for level in levels)
    # Nothing above the last level is made.
    assert not classifies(name, variables)


@pytest.mark.parametrize("name", having("tokens_only"))
def test_tokens(name):
    """They are what the classifier's input is made of; nothing above is made."""
    shape = shape_of(name)
    model = small(name, tokens_only=True)
    tokens, variables = traced(model, shape)
    assert not classifies(name, variables)
    image = jnp.asarray(np.random.default_rng(0).normal(size=shape[1:])[None], jnp.float32)
    filled = variables_of(model, image)
    found, state = jax.jit(lambda v: model.apply(v, image, mutable=["tokens"]))(filled)
    np.testing.assert_array_equal(found, state["tokens"]["tokens"][0])
    assert tokens.shape[1:] == found.shape[1:]


def test_feature_info():
    assert models.feature_info("resnet50") == (
        (64, 2),
        (256, 4),
        (512, 8),
        (1024, 16),
        (2048, 32),
    )
    assert models.feature_info("resnet50", output_stride=8)[-1] == (2048, 8)
    assert models.feature_info("vit_huge_patch14_224")[0] == (1280, 14)
    with pytest.raises(UserError, match=r"feature pyramid 'lenet5'"):
        models.create("lenet5", features_only=True)
    with pytest.raises(UserError, match=r"model with tokens 'resnet50'"):
        models.create("resnet50", tokens_only=True)


def test_aliases():
    assert models.variant("vit_b_16") is models.variant("vit_base_patch16_224")
    assert models.create("swin_t", 5) == models.create("swin_tiny_patch4_window7_224", 5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 5), (100, 36)])
def test_unet_keeps_any_size(size):
    assert shape_returned(models.create("unet", 3, width=4), (1, *size, 3)) == (1, *size, 3)


def test_unet_valid_is_as_in_the_paper():
    model = models.create("unet_valid", 2, width=4)
    assert shape_returned(model, (1, 572, 572, 1)) == (1, 388, 388, 2)
    assert shape_returned(model, (1, 188, 205, 1)) == (1, 4, 20, 2)
    with pytest.raises(UserError, match=r"187x572 vanish .* at least 188"):
        shape_returned(model, (1, 187, 572, 1))
    for depth, smallest in ((0, 5), (1, 18), (2, 44), (3, 92)):
        model = models.create("unet_valid", 2, width=4, depth=depth)
        assert min(shape_returned(model, (1, smallest, smallest, 1))) >= 1
        with pytest.raises(UserError, match=f"at least {smallest}"):
            shape_returned(model, (1, smallest - 1, smallest, 1))


def test_unet_pads_with_zeros_below_and_right():
    model = models.create("unet", 2, width=2, depth=1)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 5, 3)), jnp.float32)
    variables = variables_of(model, image)
    padded = jnp.pad(image, ((0, 0), (0, 1), (0, 1), (0, 0)))
    whole = model.apply(variables, padded)[:, :7, :5]
    np.testing.assert_allclose(model.apply(variables, image), whole, 1e-5, 1e-5)


def test_lenet_pads_28_to_32():
    model = models.create("lenet5", 10)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 28, 28, 1)), jnp.float32)
    variables = variables_of(model, image)
    padded = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    apply = jax.jit(model.apply)
    np.testing.assert_array_equal(apply(variables, image), apply(variables, padded))
    assert shape_returned(model, (1, 40, 36, 1)) == (1, 10)
    with pytest.raises(UserError, match="28x28"):
        model.apply(variables, jnp.zeros((1, 31, 32, 1)))


def test_vit_takes_its_grid_from_the_image():
    model = models.create("vit_tiny_patch16_224", 10, depth=1)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 64, 3)))
    assert variables["params"]["pos_embed"].shape == (1, 2 * 4 + 1, 192)
    with pytest.raises(UserError, match=r"40x32 .* 16x16"):
        model.init(jax.random.key(0), jnp.zeros((1, 40, 32, 3)))
    with pytest.raises(UserError, match=r"out_blocks has 4; the blocks are 0 to 3"):
        models.create("vit_mnist", depth=4, out_blocks=(4,), features_only=True).init(
            jax.random.key(0), jnp.zeros((1, 28, 28, 1))
        )


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("vit_mnist", ((28, 28), (36, 20))),
        ("beit_base_patch16_224", ((64, 64), (96, 48))),
        ("swin_base_patch4_window12_384", ((64, 64), (97, 50))),
    ],
)
def test_transformers_apply_at_another_size_than_they_were_made_for(name, sizes):
    model = small(name, 5)
    made, other = (jnp.zeros((1, *size, 1)) for size in sizes)
    variables = jax.eval_shape(model.init, jax.random.key(0), made)
    assert jax.eval_shape(model.apply, variables, other).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8_cifar", {}),
        ("vit_mnist", {"depth": 2, "num_heads": 1}),
        ("vit_mnist", {"depth": 2, "num_heads": 1, "scan": True}),
        ("unet", {"depth": 1}),
    ],
)
def test_remat_changes_nothing(name, options):
    options, shape = {"width": 2 if name != "vit_mnist" else 8, **options}, (2, 8, 8, 3)
    image = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)

    def gradient(**more):
        model = models.create(name, 3, **options, **more)
        variables = variables_of(model, image)

        def loss(params):
            v = {**variables, "params": params}
            return (model.apply(v, image, train=True, mutable=["batch_stats"])[0] ** 2).mean()

        return jax.jit(jax.grad(loss))(variables["params"])

    # Recomputing sums in another order is all that may differ.
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, gradient(), gradient(remat=True))


@pytest.mark.parametrize("name", ["mlp", "resnet8_cifar", "vit_mnist"])
def test_dropout_acts_in_training_only(name):
    small = {"depth": 2} if name == "vit_mnist" else {}
    model = models.create(name, 10, dropout=0.5, **small)
    image = jnp.asarray(np.random.default_rng(0).normal(size=shape_of(name)), jnp.float32)
    variables = variables_of(model, image)
    apply = jax.jit(
        lambda key, train: model.apply(
            variables, image, train=train, rngs={"dropout": key}, mutable=["batch_stats"]
        )[0],
        static_argnums=1,
    )
    one, two = (apply(jax.random.key(i), True) for i in range(2))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(*(apply(jax.random.key(i), False) for i in range(2)))


def test_projection_shortcuts_are_learnt():
    model = models.create("resnet20_cifar", 10, projection=True)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    # He et al. 2015, option B: 16 * 32 + 32 * 64 weights and two norms more than option A.
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == 269_722 + 2560 + 192


def test_aliases_are_inverse():
    state = {"a.conv1.conv_layer.weight": 1, "a.conv1.norm_layer.bias": 2, "a.upsample.bias": 3}
    full = with_aliases(state)
    assert full == {**state, "a.conv1.block.0.weight": 1, "a.conv1.block.1.bias": 2}
    assert without_aliases(full) == state
