"""Trained weights for other classes, channels and image sizes, as timm adapts them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.cases import GOLDEN
from parity.deterministic import weights
from safetensors.numpy import save_file

from jaxvision import models, pretrained
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.interop.published import Published, published
from jaxvision.layers.positions import resample_positions, resize_relative_bias

TIMM = dict(np.load(GOLDEN.parent / "adapted.npz"))


@pytest.mark.parametrize("grid", [(4, 4), (9, 7), (12, 3)])
def test_positions_are_resampled_as_in_timm(grid):
    positions = jnp.asarray(weights("pos_embed", (1, 38, 5)))
    ours = resample_positions(positions, grid, prefix=2, old=(6, 6))
    np.testing.assert_allclose(ours, TIMM[f"positions_{grid[0]}x{grid[1]}"], 1e-5, 1e-6)


@pytest.mark.parametrize("key", [key for key in TIMM if re.match(r"positions_.*_", key)])
def test_positions_of_grids_that_are_not_square(key):
    old, new = (tuple(map(int, grid.split("x"))) for grid in key.split("_")[1:])
    positions = jnp.asarray(weights("pos_embed", (1, 1 + old[0] * old[1], 3)))
    np.testing.assert_allclose(resample_positions(positions, new, old=old), TIMM[key], 1e-5, 1e-6)


@pytest.mark.parametrize("window", [(4, 6), (12, 5)])
@pytest.mark.parametrize(("kind", "name"), [("bias", "geometric"), ("bilinear", "bilinear")])
def test_relative_biases_of_windows_that_are_not_square(window, kind, name):
    table = jnp.asarray(weights("table", (172, 3)))
    ours = resize_relative_bias(table, window, class_token=True, interpolation=name)
    np.testing.assert_allclose(ours, TIMM[f"{kind}_{window[0]}x{window[1]}"], 1e-4, 1e-5)


@pytest.mark.parametrize("extra", [0, 3])
@pytest.mark.parametrize("side", [4, 6, 9, 12])
def test_relative_biases_are_resized_as_in_timm(extra, side):
    table = jnp.asarray(weights("table", (169 + extra, 3)))
    ours = resize_relative_bias(table, (side, side), class_token=extra > 0)
    np.testing.assert_allclose(ours, TIMM[f"bias_{extra}_{side}"], 1e-4, 1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_channels_are_adapted_as_in_timm(channels):
    ours = pretrained.adapt_channels(weights("conv.weight", (4, 3, 2, 2)), channels)
    np.testing.assert_allclose(ours, TIMM[f"channels_{channels}"], 1e-6)


def test_weights_that_are_not_for_colour_are_left_alone():
    weight = weights("conv.weight", (4, 2, 3, 3))
    assert pretrained.adapt_channels(weight, 3) is weight


@pytest.fixture
def vit_file(tmp_path):
    """(path, variables) of a small ViT for 28x28 grey images and ten classes."""
    model = models.create("vit_mnist", 10)
    variables = model.init(jax.random.key(5), jnp.zeros((1, 28, 28, 1)))
    torch_weights.save(tmp_path / "vit.safetensors", variables)
    return tmp_path / "vit.safetensors", variables


def leaves(variables):
    return torch_weights.to_state_dict(variables)


def test_another_number_of_classes_leaves_the_rest(vit_file):
    path, trained = vit_file
    model, variables = pretrained.create(
        "vit_mnist", str(path), num_classes=3, image_size=(28, 28), channels=1
    )
    ours, theirs = leaves(variables), leaves(trained)
    assert ours.pop("head.weight").shape == (3, 64)
    assert ours.pop("head.bias").shape == (3,)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
    assert model.apply(variables, jnp.zeros((2, 28, 28, 1))).shape == (2, 3)


def test_no_classes_and_features_only(vit_file):
    path, trained = vit_file
    image = jnp.ones((1, 28, 28, 1))
    options = {"image_size": (28, 28), "channels": 1}
    model, variables = pretrained.create("vit_mnist", str(path), num_classes=0, **options)
    assert "head.weight" not in leaves(variables)
    pooled = model.apply(variables, image)
    head = trained["params"]["head"]
    logits = pooled @ head["kernel"] + head["bias"]
    whole = models.create("vit_mnist", 10).apply(trained, image)
    np.testing.assert_allclose(logits, whole, 1e-5, 1e-5)
    model, variables = pretrained.create("vit_mnist", str(path), features_only=True, **options)
    assert set(leaves(variables)) < set(leaves(trained))
    assert [x.shape for x in model.apply(variables, image)] == [(1, 7, 7, 64)] * 4


def test_another_image_size_and_colour(vit_file):
    path, trained = vit_file
    _, variables = pretrained.create("vit_mnist", str(path), 10, image_size=(40, 40), channels=1)
    expected = resample_positions(trained["params"]["pos_embed"], (10, 10))
    np.testing.assert_allclose(variables["params"]["pos_embed"], expected, 1e-6, 1e-7)
    with pytest.raises(UserError, match=r"patch_embed.proj.weight is \[64, 1, 4, 4\]"):
        pretrained.create("vit_mnist", str(path), 10, image_size=(28, 28), channels=3)


def test_an_image_that_is_not_square(vit_file):
    path, trained = vit_file
    options = {"num_classes": 10, "channels": 1}
    model, variables = pretrained.create("vit_mnist", str(path), image_size=(40, 20), **options)
    assert model.grid == (10, 5)
    expected = resample_positions(trained["params"]["pos_embed"], (10, 5))
    np.testing.assert_allclose(variables["params"]["pos_embed"], expected, 1e-6, 1e-7)
    # Of images that are turned the positions are turned, not taken as they lie.
    torch_weights.save(path, variables)
    turned = models.create("vit_mnist", 10, grid=(10, 5))
    image = jax.random.normal(jax.random.key(0), (1, 20, 40, 1))
    loaded = jax.tree.map(jnp.asarray, torch_weights.load(path, variables))
    same = resample_positions(loaded["params"]["pos_embed"], (5, 10), old=(10, 5))
    moved = {"params": loaded["params"] | {"pos_embed": same}}
    straight = models.create("vit_mnist", 10).apply(moved, image)
    np.testing.assert_allclose(turned.apply(loaded, image), straight, 1e-5, 1e-5)
    with pytest.raises(UserError, match=r"50 .* not square: .* grid=\(rows, columns\)"):
        pretrained.create("vit_mnist", str(path), image_size=(28, 28), **options)
    with pytest.raises(UserError, match=r"49 stored positions are of 1x49 or 7x7: .* grid="):
        pretrained.create("vit_mnist", str(path), image_size=(4, 196), **options)


@pytest.mark.parametrize(
    ("name", "options", "table", "rows"),
    [
        ("beit_base_patch16_224", {"depth": 1, "width": 24, "num_heads": 2},
         "blocks.0.attn.relative_position_bias_table", 9 * 5 + 3),
        ("swin_tiny_patch4_window7_224",
         {"depths": (1, 1, 1, 1), "width": 12, "num_heads": (1, 1, 1, 1)},
         "layers.2.blocks.0.attn.relative_position_bias_table", 9 * 5),
    ],
)  # fmt: skip
def test_tables_of_biases_for_an_image_that_is_not_square(tmp_path, name, options, table, rows):
    model, file = models.create(name, 5, **options), tmp_path / "weights.safetensors"
    trained = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    trained = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(weights(jax.tree_util.keystr(path), x.shape)), trained
    )
    torch_weights.save(file, trained)
    _, variables = pretrained.create(name, str(file), 5, image_size=(80, 48), **options)
    extra = rows % 5
    old = torch_weights.to_state_dict(trained)[table]
    expected = resize_relative_bias(jnp.asarray(old), (5, 3), extra > 0)
    ours = torch_weights.to_state_dict(variables)[table]
    assert len(ours) == rows
    np.testing.assert_allclose(ours, expected, 1e-5, 1e-6)
    # Weights of the encoder alone are told the grid by the encoder that is given.
    declared = models.create(name, features_only=True, grid=(60 // 4, 48 // 4), **options)
    if extra == 0:
        shape = (1, 60, 48, 3)
        inner = jax.eval_shape(declared.init, jax.random.key(0), jnp.zeros(shape))
        like = {kind: {"backbone": tree} for kind, tree in inner.items()}
        read = pretrained.read(str(file), name)
        filled = pretrained.fill_encoder(name, "backbone", read, like, declared)
        found = torch_weights.to_state_dict(filled)[f"backbone.{table}"]
        expected = resize_relative_bias(jnp.asarray(old), (4, 3))
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)
    unknown = models.create(name, 5, **options)
    like = jax.eval_shape(unknown.init, jax.random.key(0), jnp.zeros((1, 80, 48, 3)))
    with pytest.raises(UserError, match=r"stored positions .* grid=\(rows, columns\)"):
        pretrained.load_into(name, unknown, pretrained.read(str(file), name), like)


def test_resnet_for_grey_images(tmp_path):
    model = models.create("resnet8_cifar", 10)
    trained = model.init(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    torch_weights.save(tmp_path / "r.safetensors", trained)
    grey, variables = pretrained.create(
        "resnet8_cifar", str(tmp_path / "r.safetensors"), 10, channels=1
    )
    image = jax.random.normal(jax.random.key(2), (2, 32, 32, 1))
    colour = jnp.tile(image, (1, 1, 1, 3))
    ours, theirs = grey.apply(variables, image), model.apply(trained, colour)
    np.testing.assert_allclose(ours, theirs, 1e-4, 1e-5)


def test_a_class_for_the_background_is_taken_off():
    entry = models.variant("resnet8_cifar")
    state = {"linear.weight": np.arange(22.0).reshape(11, 2), "linear.bias": np.arange(11.0)}
    shapes = {"linear.weight": (10, 2), "linear.bias": (10,)}
    out = pretrained.adapt(entry, state, shapes, Published(classes=11, background=1))
    np.testing.assert_array_equal(out["linear.bias"], np.arange(1.0, 11.0))
    np.testing.assert_array_equal(out["linear.weight"], state["linear.weight"][1:])


def read(path):
    return pretrained.read(str(path), "vit_mnist")


def test_fitting_classifiers_are_kept_unless_reset(vit_file):
    path, trained = vit_file
    model = models.create("vit_mnist", 10)
    fresh = model.init(jax.random.key(9), jnp.zeros((1, 28, 28, 1)))

    def head(**options):
        loaded = pretrained.load_into("vit_mnist", model, read(path), dict(fresh), **options)
        return loaded["params"]["head"]["kernel"]

    np.testing.assert_array_equal(head(fine_tune=True), trained["params"]["head"]["kernel"])
    reset = head(fine_tune=True, reset_classifier=True)
    np.testing.assert_array_equal(reset, fresh["params"]["head"]["kernel"])


def test_without_fine_tuning_a_classifier_must_fit(vit_file):
    path, _ = vit_file
    model = models.create("vit_mnist", 7)
    fresh = model.init(jax.random.key(9), jnp.zeros((1, 28, 28, 1)))
    with pytest.raises(UserError, match=r"Mis-shaped \(2\): head.bias is \[10\], the model's is"):
        pretrained.load_into("vit_mnist", model, read(path), dict(fresh))


def test_names_that_are_nowhere(vit_file):
    path, _ = vit_file
    with pytest.raises(UserError, match="Missing"):
        pretrained.create("resnet8_cifar", str(path))


def test_extra_tensors_are_named_and_left_out_on_request(vit_file, tmp_path):
    _, trained = vit_file
    extra = {"blocks.0.total_ops": np.zeros(1), "mean": np.zeros(3)}
    save_file(leaves(trained) | extra, tmp_path / "extra.safetensors")
    options = {"image_size": (28, 28), "channels": 1}
    named = r"Unexpected \(2\): blocks\.0\.total_ops, mean\n.*#ignore=blocks\.0\.total_ops"
    with pytest.raises(UserError, match=named):
        pretrained.create("vit_mnist", str(tmp_path / "extra.safetensors"), **options)
    wanted = f"{tmp_path}/extra.safetensors#ignore=*.total_ops"
    with pytest.raises(UserError, match=r"Unexpected \(1\): mean"):
        pretrained.create("vit_mnist", wanted, **options)
    _, variables = pretrained.create("vit_mnist", f"{wanted},ignore=*", **options)
    jax.tree.map(np.testing.assert_array_equal, variables, trained)


def test_a_prefix_of_some_names_is_found(vit_file, tmp_path):
    _, trained = vit_file
    state = {f"encoder_q.{name}": value for name, value in leaves(trained).items()}
    save_file(state | {"queue": np.zeros(2)}, tmp_path / "moco.safetensors")
    options = {"image_size": (28, 28), "channels": 1}
    with pytest.raises(UserError, match=r"under 'encoder_q\.': write #encoder_q after its name"):
        pretrained.create("vit_mnist", str(tmp_path / "moco.safetensors"), 10, **options)
    _, variables = pretrained.create(
        "vit_mnist", f"{tmp_path}/moco.safetensors#encoder_q", **options
    )
    jax.tree.map(np.testing.assert_array_equal, variables, trained)


def test_preparation_is_timms():
    resize, crop = pretrained.preparation(Published(size=224, crop=0.875, interpolation="bicubic"))
    assert resize == {"name": "resize_shorter", "size": 256, "interpolation": "bicubic"}
    assert crop == {"name": "center_crop", "size": 224}


def test_preparation_for_segmentation_crops_nothing():
    (shorter,) = pretrained.preparation(published("fcn_resnet50")["COCO_WITH_VOC_LABELS_V1"])
    assert shorter == {"name": "resize_shorter", "size": 520, "interpolation": "bilinear"}
    (square,) = pretrained.preparation(published("upernet_beit_base")["ade20k"])
    assert square == {"name": "resize", "size": 640, "interpolation": "bilinear"}


def test_preparation_for_detection_is_that_of_the_reference():
    (shortest,) = pretrained.preparation(published("retinanet_resnet50_fpn")["COCO_V1"])
    assert shortest == {
        **{"name": "resize_shortest", "size": 800, "longest": 1333, "multiple": 32},
        **{"interpolation": "bilinear", "antialias": False},
    }
    (square,) = pretrained.preparation(published("ssd300_vgg16")["COCO_V1"])
    assert (square["name"], square["size"], square["antialias"]) == ("resize", 300, False)
    (letterbox,) = pretrained.preparation(published("tf_efficientdet_d0")["coco"])
    assert letterbox == {
        **{"name": "letterbox", "size": 512, "interpolation": "bilinear"},
        **{"center": False, "fill": 114},
    }
    # A file by any name is prepared so too.
    known = published("retinanet_resnet50_fpn")["COCO_V1"]
    assert pretrained.usual("retinanet_resnet50_fpn", 819) == known
    assert pretrained.class_names(known)[17:19] == ("cat", "dog")


def test_what_is_supposed_of_a_file_of_ones_own():
    assert pretrained.usual("resnet8_cifar", 10) == Published(size=32, classes=10)
    known = published("fcn_resnet50")["COCO_WITH_VOC_LABELS_V1"]
    assert pretrained.usual("fcn_resnet50", 21) == known
    assert pretrained.class_names(known)[15] == "person"
    other = pretrained.usual("fcn_resnet50", 2)
    assert (other.size, other.crop) == (520, 0)
    assert pretrained.class_names(other) == ("class 0", "class 1")
    assert pretrained.usual("unet", 2).crop == 0
