import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxvision.data.augment import augment, names, normalize, policy, rand_augment, validate
from jaxvision.data.augment.rand_augment import OPERATIONS, apply_operation, strengths
from jaxvision.errors import UserError
from jaxvision.ops import bits


def apply(images, name, strength):
    number = OPERATIONS.index(name)
    return APPLY(images, jnp.full(3, number), jnp.full(3, strength, jnp.float32))


APPLY = jax.jit(apply_operation)


def moved(image, *coefficients):
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )


@pytest.mark.parametrize(
    ("name", "strength", "theirs"),
    [
        ("identity", 0.0, lambda image: image),
        ("brightness", -0.5, lambda image: ImageEnhance.Brightness(image).enhance(0.5)),
        ("color", 0.7, lambda image: ImageEnhance.Color(image).enhance(1.7)),
        ("contrast", 0.4, lambda image: ImageEnhance.Contrast(image).enhance(1.4)),
        ("sharpness", -0.6, lambda image: ImageEnhance.Sharpness(image).enhance(0.4)),
        ("posterize", 5.0, lambda image: ImageOps.posterize(image, 5)),
        ("solarize", 0.7, lambda image: ImageOps.solarize(image, 178.5)),
        ("autocontrast", 0.0, ImageOps.autocontrast),
        ("equalize", 0.0, ImageOps.equalize),
        ("shear_x", 0.2, lambda image: moved(image, 1, 0.2, 0, 0, 1, 0)),
        ("shear_y", -0.1, lambda image: moved(image, 1, 0, 0, -0.1, 1, 0)),
        ("translate_x", 7.0, lambda image: moved(image, 1, 0, -7, 0, 1, 0)),
        ("translate_y", -5.0, lambda image: moved(image, 1, 0, 0, 0, 1, 5)),
        ("rotate", 20.0, lambda image: image.rotate(20, Image.Resampling.BILINEAR)),
    ],
)
def test_operations_equal_pillow(photos, images, name, strength, theirs):
    ours = np.asarray(apply(images, name, strength)) * 255
    expected = np.stack([np.asarray(theirs(Image.fromarray(photo))) for photo in photos])
    difference = np.abs(ours - expected)
    if name.startswith(("shear", "translate", "rotate")):
        # Pillow interpolates only where all neighbours lie inside, and so has another border.
        assert np.quantile(difference, 0.97) < 1.1
    else:
        assert difference.max() < 2.01


def test_strengths_are_torchvisions():
    strength, signed = strengths(9, 100, 331)
    table = dict(zip(OPERATIONS, strength, strict=True))
    assert table["shear_x"] == pytest.approx(0.09)
    assert table["translate_x"] == pytest.approx(45)
    assert table["translate_y"] == pytest.approx(100 * 45 / 331)
    assert table["rotate"] == pytest.approx(9)
    assert table["contrast"] == pytest.approx(0.27)
    assert table["posterize"] == 7
    assert table["solarize"] == pytest.approx(0.7)
    assert signed.tolist() == [False] + [True] * 9 + [False] * 4


def test_rand_augment(images):
    function = jax.jit(functools.partial(rand_augment, num_ops=2, magnitude=9))
    outs = [np.asarray(function(jax.random.key(seed), images)) for seed in range(4)]
    np.testing.assert_array_equal(outs[0], function(jax.random.key(0), images))
    assert all((a != b).any() for a, b in itertools.pairwise(outs))
    assert all(0 <= out.min() <= out.max() <= 1.000001 for out in outs)
    np.testing.assert_array_equal(rand_augment(jax.random.key(0), images, num_ops=0), images)
    grey = function(jax.random.key(0), images[..., :1])
    assert grey.shape == (3, 48, 64, 1)


def test_normalize(images):
    out = normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = (np.asarray(images) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(normalize(images[..., :1], [0.5], [0.5]).min(), -1, atol=0.2)


LIST = [
    {"name": "flip_horizontal", "probability": 0.5},
    {"name": "random_affine", "degrees": 10, "scale": [0.9, 1.1]},
    {"name": "random_color_jitter", "brightness": 0.2, "hue": 0.05},
]


@pytest.fixture(scope="module")
def batch(photos):
    return {"image": jnp.asarray(photos), "label": jnp.array([2, 0, 1])}


def test_augment_applies_the_list_in_order(batch, images):
    key = jax.random.key(0)
    out = jax.jit(lambda key, batch: augment(key, batch, LIST))(key, batch)
    expected = images
    for position, entry in enumerate(LIST):
        augmentation = policy.AUGMENTATIONS[entry["name"]]
        function = augmentation.function
        parameters = {k: v for k, v in entry.items() if k != "name"}
        parameters |= {"degrees": 10.0, "scale": (0.9, 1.1)} if "degrees" in parameters else {}
        if augmentation.kind == "geometric":
            motion = function(jax.random.fold_in(key, position), expected.shape, **parameters)
            expected = motion.images(expected)
        else:
            expected = function(jax.random.fold_in(key, position), expected, **parameters)
    np.testing.assert_allclose(out["image"], expected, atol=1e-5)
    np.testing.assert_array_equal(out["label"], batch["label"])
    assert batch["image"].dtype == jnp.uint8  # the batch given is not changed
    np.testing.assert_allclose(augment(key, batch, [])["image"], images, atol=1e-7)


def test_one_more_at_the_end_changes_nothing_before_it(batch):
    key = jax.random.key(5)
    longer = [*LIST[:2], {"name": "random_greyscale", "probability": 0.0}]
    np.testing.assert_array_equal(
        augment(key, batch, LIST[:2])["image"], augment(key, batch, longer)["image"]
    )


def test_mixing_replaces_labels(batch):
    mixing = [{"name": "mixup", "alpha": 0.4}, {"name": "cutmix"}]
    out = jax.jit(lambda k, b: augment(k, b, mixing, num_classes=4))(jax.random.key(0), batch)
    assert "label" not in out
    assert out["label_probs"].shape == (3, 4)
    np.testing.assert_allclose(out["label_probs"].sum(-1), 1, atol=1e-6)
    assert "label" in batch


@pytest.fixture(scope="module")
def placed(batch):
    """One object in each image, annotated in every way."""
    masks = np.zeros((3, 48, 64), np.int32)
    masks[:, 10:30, 5:25] = 1
    boxes = np.tile(np.float32([[5, 10, 25, 30], [0, 0, 0, 0]]), (3, 1, 1))
    instances = np.stack([masks == 1, masks > 1], 1)
    points = np.tile(np.float32([[15.5, 20.5, 1], [6.5, 11.5, 1], [23.5, 11.5, 1]]), (3, 2, 1, 1))
    points[:, 1] = 0
    return batch | {
        "segmentation": jnp.asarray(masks),
        "boxes": jnp.asarray(boxes),
        "box_valid": jnp.asarray([[True, False]] * 3),
        "instance_masks": bits.pack(jnp.asarray(instances)),
        "mask_valid": jnp.asarray([[True, False]] * 3),
        "keypoints": jnp.asarray(points),
    }


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "flip_horizontal", "keypoint_order": [0, 2, 1]},
        {"name": "random_crop", "padding": 12},
        {"name": "random_affine", "degrees": 20.0, "translate": (0.2, 0.2)},
    ],
)
def test_all_annotations_move_together(placed, entry):
    out = jax.jit(lambda k, b: augment(k, b, [entry]))(jax.random.key(1), placed)
    segmentation = np.asarray(out["segmentation"])
    masks = np.unpackbits(np.asarray(out["instance_masks"]), axis=-1)
    np.testing.assert_array_equal(masks[:, 0], segmentation == 1)
    assert not masks[:, 1].any()
    np.testing.assert_array_equal(out["box_valid"], placed["box_valid"])
    for index in range(3):
        rows, columns = np.nonzero(segmentation[index] == 1)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(out["boxes"][index, 0], tight, atol=1)
        x, y, visible = np.asarray(out["keypoints"])[index, 0].T
        assert visible[0] == 1
        assert segmentation[index, int(y[0]), int(x[0])] == 1
        if entry["name"] == "flip_horizontal":
            assert x[1] < x[2]  # left stays left


def test_what_leaves_the_image_is_invalid(placed):
    entry = {"name": "random_affine", "scale": (30.0, 30.0)}
    out = augment(jax.random.key(0), placed, [entry])
    assert not np.asarray(out["box_valid"]).any()
    assert not np.asarray(out["keypoints"])[..., 2].any()


def test_flips_of_key_points_move_only_flipped_images(placed):
    out = augment(
        jax.random.key(1), placed, [{"name": "flip_horizontal", "keypoint_order": [0, 2, 1]}]
    )
    flipped = np.asarray(out["boxes"][:, 0, 0] != 5)
    assert 0 < flipped.sum() < 3
    same = (np.asarray(out["keypoints"]) == np.asarray(placed["keypoints"])).all((1, 2, 3))
    np.testing.assert_array_equal(same, ~flipped)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "mixupp"}, "Unknown augmentation 'mixupp'. Did you mean 'mixup'"),
        ({"name": "random_affine", "degree": 3}, "Unknown parameter.*'degree'.*'degrees'"),
        ({"probability": 0.5}, "Augmentation 0 has no 'name'"),
        ({"name": "flip_vertical", "probability": 1.5}, "probability is 1.5; expected 0 to 1"),
        ({"name": "random_affine", "scale": 1.2}, "scale is 1.2; expected 2 numbers"),
        ({"name": "random_blur", "sigma": [0.1]}, "expected 2 numbers, such as \\(0.1, 2.0\\)"),
        ({"name": "random_crop", "padding": 1.5}, "padding is 1.5; expected int"),
        ({"name": "mixup", "alpha": "x"}, "alpha is 'x'; expected float"),
        ({"name": "rand_augment", "magnitude": 31}, "magnitude is 31; expected 0 to 30"),
    ],
)
def test_bad_entries(batch, entry, message):
    with pytest.raises(UserError, match=message):
        validate([entry])
    with pytest.raises(UserError, match=message):
        augment(jax.random.key(0), batch, [entry])


def test_entries_that_do_not_suit_the_batch(batch, placed):
    key = jax.random.key(0)
    with pytest.raises(UserError, match="'mixup' needs num_classes"):
        augment(key, batch, [{"name": "mixup"}])
    with pytest.raises(UserError, match="does not carry along segmentation, boxes"):
        augment(key, placed, [{"name": "rand_augment"}])
    with pytest.raises(UserError, match="needs 'keypoint_order'"):
        augment(key, placed, [{"name": "flip_vertical"}])


def test_names_are_listed():
    assert "flip_horizontal" in names()
    assert names() == sorted(names())
    validate([{"name": name} for name in names()])
