"""Stored values of masks: classes, void, and masks that contradict the configuration."""

import numpy as np
import pytest

from jaxvision.data.annotations import Settings, named
from jaxvision.data.codecs import encode_png
from jaxvision.data.decode import Decode
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

IMAGE = encode_png(np.full((6, 8, 3), 9, np.uint8))


def test_mask_values_are_mapped_to_classes():
    settings = Settings(num_classes=3, mask_values=(7, 11, 21))
    decode = Decode(3, named(["segmentation"]), settings)
    mask = np.resize(np.array([7, 11, 21, 0, 255], np.uint8), (6, 8))
    out = decode({"image": IMAGE, "segmentation": encode_png(mask)}, "r")["segmentation"]
    expected = {7: 0, 11: 1, 21: 2, 0: 255, 255: 255}
    np.testing.assert_array_equal(out, np.vectorize(expected.get)(mask))


def test_void_is_of_stored_values():
    settings = Settings(num_classes=3, void=(0,), mask_values=(1, 2, 3))
    decode = Decode(3, named(["segmentation"]), settings)
    mask = np.resize(np.arange(4, dtype=np.uint8), (6, 8))
    out = decode({"image": IMAGE, "segmentation": encode_png(mask)}, "r")["segmentation"]
    np.testing.assert_array_equal(out, np.array([255, 0, 1, 2])[mask])


def two_classes(folder, masks):
    """The configuration of a folder of images and masks of two classes."""
    for index, mask in enumerate(masks):
        for name, content in (("train", IMAGE), ("trainannot", encode_png(mask))):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{index:02}.png").write_bytes(content)
    data = default_config().data
    data.source, data.dir, data.classes = "masks", str(folder), ("background", "cell")
    return data


def test_masks_of_0_and_255_are_met_at_the_door(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[:3] = 255
    data = two_classes(tmp_path, [mask] * 4)
    message = (
        r"There are 2 classes, but 4 masks of the split hold only one of them\. Values found: "
        r"0 \(50\.0%\), 255 \(50\.0%\)\. Set data\.mask_values=\(0, 255\)"
    )
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=True)
    data.mask_values = (0, 255)
    record = open_stream(data, "train", seed=0, train=True)[0]
    np.testing.assert_array_equal(record["segmentation"], mask > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"mask_values": (1, 2)},
            r"none of them\. Values found: 0 \(100\.0%\)\. data\.mask_values",
        ),
        ({"void": (0,)}, r"none of them\. Values found: 0"),
        ({}, r"only one of them\. Values found: 0 \(100\.0%\)\. data\.mask_values names"),
    ],
)
def test_masks_of_fewer_than_two_classes(tmp_path, changes, message):
    data = two_classes(tmp_path, [np.zeros((6, 8), np.uint8)] * 3)
    data.update(changes)
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=True)


def test_one_mask_with_the_rare_class_is_enough(tmp_path):
    masks = np.zeros((20, 6, 8), np.uint8)
    masks[:, 0] = 255
    masks[13, 3, 3] = 1
    open_stream(two_classes(tmp_path, masks), "train", seed=0, train=True)


def test_a_stored_value_is_a_class_or_void(tmp_path):
    data = two_classes(tmp_path, [np.zeros((6, 8), np.uint8)])
    data.void, data.mask_values = (7, 3), (0, 3)
    with pytest.raises(UserError, match=r"data\.void and data\.mask_values both have 3"):
        open_stream(data, "train", seed=0, train=True)


# -- colours ---------------------------------------------------------------------------------------

COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def colour_masks(folder, masks, classes=("background", "car", "tree")):
    data = two_classes(folder, masks)
    data.classes = classes
    return data


def test_colours_become_classes(tmp_path):
    classes = np.resize(np.array([0, 1, 2, 255], np.uint8), (6, 8))
    table = np.zeros((256, 3), np.uint8)
    table[:3], table[255] = COLOURS, (224, 224, 192)
    data = colour_masks(tmp_path, [table[classes]] * 2)
    data.mask_colours = COLOURS
    for record in (open_stream(data, "train", seed=0, train=train)[0] for train in (True, False)):
        np.testing.assert_array_equal(record["segmentation"], classes)
    decode = Decode(3, named(["segmentation"]), Settings(3, mask_colours=COLOURS))
    out = decode({"image": IMAGE, "segmentation": table[classes]}, "r")["segmentation"]
    np.testing.assert_array_equal(out, classes)


def test_colours_that_are_no_classes_are_met_at_the_door(tmp_path):
    mask = np.full((6, 8, 3), (128, 0, 0), np.uint8)
    mask[:3] = (1, 2, 3)
    data = colour_masks(tmp_path, [mask] * 3)
    data.on_corrupt = "skip"
    with pytest.raises(UserError, match=r"an RGB image with the colours \(1, 2, 3\), \(128"):
        open_stream(data, "train", seed=0, train=True)
    data.mask_colours = COLOURS
    message = r"only one of them\. Values found: \(1, 2, 3\) \(50\.0%\), \(128, 0, 0\) \(50\.0%\)"
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_colours": COLOURS[:2]}, r"data\.mask_colours has 2 values for 3 classes"),
        ({"mask_colours": (*COLOURS[:2], COLOURS[0])}, r"data\.mask_colours names a value twice"),
        ({"mask_values": (1, 2, 1)}, r"data\.mask_values names a value twice"),
        ({"mask_colours": (*COLOURS[:2], (0, 0, 256))}, r"not \(0, 0, 256\)"),
        ({"mask_colours": (*COLOURS[:2], "green")}, "not 'green'"),
        ({"mask_colours": COLOURS, "void": (9,)}, r"data\.void are of masks of one channel"),
        ({"mask_colours": COLOURS, "mask_values": (1, 2, 3)}, r"data\.mask_values"),
    ],
)
def test_wrong_colours(tmp_path, changes, message):
    data = colour_masks(tmp_path, [np.zeros((6, 8), np.uint8)])
    data.update(changes)
    with pytest.raises(UserError, match=message):
        open_stream(data, "train", seed=0, train=False)


# -- more than 255 classes -------------------------------------------------------------------------

WIDE = np.resize(np.array([0, 43, 254, 255, 256, 299, 65535], np.uint16), (6, 8))


def test_wide_masks_keep_class_255_and_have_a_void_of_their_own(tmp_path):
    decode = Decode(3, named(["segmentation"]), Settings(num_classes=300))
    out = decode({"image": IMAGE, "segmentation": encode_png(WIDE)}, "r")["segmentation"]
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, WIDE)
    decode = Decode(3, named(["segmentation"]), Settings(num_classes=300, void=(255, 43)))
    out = decode({"image": IMAGE, "segmentation": encode_png(WIDE)}, "r")["segmentation"]
    np.testing.assert_array_equal(out, np.where(np.isin(WIDE, (43, 255)), 65535, WIDE))
    values = tuple(range(1000, 1300))
    decode = Decode(3, named(["segmentation"]), Settings(num_classes=300, mask_values=values))
    mask = encode_png(np.where(WIDE < 300, WIDE + 1000, WIDE).astype(np.uint16))
    out = decode({"image": IMAGE, "segmentation": mask}, "r")["segmentation"]
    np.testing.assert_array_equal(out, WIDE)
    with pytest.raises(UserError, match=r"value 299, but there are 299 classes .*65535 = ignore"):
        Decode(3, named(["segmentation"]), Settings(num_classes=299))(
            {"image": IMAGE, "segmentation": encode_png(WIDE)}, "r"
        )


def test_padding_of_wide_masks_is_of_no_class(tmp_path):
    data = two_classes(tmp_path, [WIDE] * 2)
    data.classes = tuple(map(str, range(300)))
    data.eval_transforms = ({"name": "pad_to", "size": (8, 9)},)
    stream = open_stream(data, "train", seed=0, train=False)
    mask = stream[0]["segmentation"]
    np.testing.assert_array_equal(mask[:6, :8], WIDE)
    assert (mask[6:] == 65535).all()
    assert (mask[:, 8] == 65535).all()
    assert (stream[2]["segmentation"] == 65535).all()  # of no record


@pytest.mark.parametrize(("dtype", "nothing"), [("uint8", 255), ("int32", 65535)])
def test_what_augmentation_brings_in_is_of_no_class(dtype, nothing):
    import jax
    import jax.numpy as jnp

    from jaxvision.data import augment

    batch = {
        "image": jnp.zeros((2, 8, 8, 3)),
        "segmentation": jnp.full((2, 8, 8), 7, dtype),
    }
    for step, fill in (({}, nothing), ({"mask_fill": 3}, 3)):
        steps = [{"name": "random_crop", "padding": 8, **step}]
        moved = augment.augment(jax.random.key(0), batch, steps)["segmentation"]
        assert moved.dtype == dtype
        assert set(np.unique(moved).tolist()) == {7, fill}


def test_crops_of_wide_masks_count_class_255():
    """Every window but the last column of them is of one class, 255; a draw is made again."""
    from jaxvision.data import transforms

    mask = np.full((4, 8), 255, np.int32)
    mask[:, 7] = 1
    crop = transforms.compose(
        [{"name": "random_crop", "size": 4, "max_share": 0.8}], named(["segmentation"])
    )
    record = {"image": np.zeros((4, 8, 3), np.uint8), "segmentation": mask}
    seen = [crop(dict(record), np.random.default_rng(i))["segmentation"] for i in range(40)]
    assert sum((window == 1).any() for window in seen) > 30  # one draw in five
