import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxvision.data import transforms as T
from jaxvision.data.resizing import resize_image, resize_mask
from jaxvision.errors import UserError

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
OPENCV = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
SIZES = [(20, 31), (80, 64), (20, 90), (40, 50)]


def noise(height=40, width=50, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def apply(name, record, rng=None, **parameters):
    return T.compose([{"name": name, **parameters}])(record, rng or np.random.default_rng(0))


# -- resizing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", PILLOW)
def test_antialiased_resize_is_pillows(interpolation, channels, size):
    image = noise(channels=channels)
    ours = resize_image(image, size, interpolation)
    pillow = Image.fromarray(image.squeeze()).resize(size[::-1], PILLOW[interpolation])
    np.testing.assert_array_equal(ours, np.asarray(pillow).reshape(*size, channels))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", OPENCV)
def test_plain_resize_is_opencvs(interpolation, channels, size):
    image = noise(channels=channels)
    ours = resize_image(image, size, interpolation, antialias=False)
    theirs = cv2.resize(image, size[::-1], interpolation=OPENCV[interpolation])
    np.testing.assert_array_equal(ours, theirs.reshape(*size, channels))


@pytest.mark.parametrize("size", [*SIZES, (7, 11), (121, 13)])
def test_masks_take_the_nearest_pixel_with_centres_aligned(size):
    for dtype in (np.uint8, np.int32):
        mask = noise(channels=1)[..., 0].astype(dtype)
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
            for new, old in zip(size, mask.shape)
        )
        resized = resize_mask(mask, size)
        assert resized.dtype == dtype
        np.testing.assert_array_equal(resized, mask[rows][:, columns])


def test_antialiasing_averages_and_plain_sampling_aliases():
    stripes = np.tile(np.array([0, 255], np.uint8), 64)[None, :, None].repeat(128, 0)
    smooth = resize_image(stripes, 32, antialias=True)
    assert np.abs(smooth[:, 2:-2].astype(int) - 127).max() <= 1
    comb = np.zeros((128, 128, 1), np.uint8)
    comb[:, ::4] = 255
    assert resize_image(comb, 32, antialias=False).max() == 0


@pytest.mark.parametrize(
    ("shape", "shorter", "longer"),
    [
        ((40, 60), (20, 30), (13, 20)),
        ((61, 40), (30, 20), (20, 13)),
        ((30, 30), (20, 20), (20, 20)),
    ],
)
def test_resizing_one_side_keeps_the_aspect_ratio(shape, shorter, longer):
    record = {"image": noise(*shape)}
    assert apply("resize_shorter", record, size=20)["image"].shape[:2] == shorter
    assert apply("resize_longer", record, size=20)["image"].shape[:2] == longer


def test_the_longest_image_keeps_a_pixel():
    assert apply("resize_longer", {"image": noise(1, 500)}, size=20)["image"].shape == (1, 20, 3)
    rng = np.random.default_rng(0)
    shrunk = apply("random_scale", {"image": noise(1, 50)}, rng, scale=(0.1, 0.1))
    assert shrunk["image"].shape == (1, 5, 3)


# -- geometry -------------------------------------------------------------------------------------

CROPPING = [
    {"name": "pad_to", "size": [70, 30]},
    {"name": "pad_to", "size": [70, 90], "center": True},
    {"name": "center_crop", "size": [33, 41]},
    {"name": "center_crop", "size": 64},
    {"name": "random_crop", "size": [33, 41]},
    {"name": "random_crop", "size": [90, 20]},
]
SCALING = [
    {"name": "resize", "size": [80, 45]},
    {"name": "resize", "size": [31, 33], "antialias": False},
    {"name": "resize_shorter", "size": 50},
    {"name": "resize_longer", "size": 100},
    {"name": "random_scale", "scale": [0.5, 2.0]},
    {"name": "random_resized_crop", "size": [60, 48], "scale": [0.3, 1.0]},
]


def rectangle(draw):
    """A record of which a filled rectangle is image, mask and box at once."""
    height, width = draw(st.integers(40, 80)), draw(st.integers(40, 80))
    top, left = draw(st.integers(0, height - 12)), draw(st.integers(0, width - 12))
    bottom = draw(st.integers(top + 10, height))
    right = draw(st.integers(left + 10, width))
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    box = np.array([[left, top, right, bottom]], np.float32)
    image = np.repeat(mask[..., None] * np.uint8(255), 3, -1)
    return {"image": image, "segmentation": mask, "boxes": box, "label": 3}


def box_of(inside):
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(CROPPING), st.integers(0, 2**32))
def test_crops_move_image_mask_and_box_exactly(data, step, seed):
    record = rectangle(data.draw)
    out = T.compose([step])(record, np.random.default_rng(seed))
    inside = out["segmentation"] == 1
    np.testing.assert_array_equal(inside, out["image"][..., 0] == 255)
    assert out["image"].shape[:2] == out["segmentation"].shape
    assert out["label"] == 3
    if inside.any():
        (box,) = out["boxes"]
        np.testing.assert_array_equal(box, box_of(inside))
    else:
        assert len(out["boxes"]) == 0


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(SCALING), st.integers(0, 2**32))
def test_scaling_moves_image_mask_and_box_alike(data, step, seed):
    record = rectangle(data.draw)
    out = T.compose([step])(record, np.random.default_rng(seed))
    image, mask = out["image"][..., 0], out["segmentation"]
    assert image.shape == mask.shape
    if not len(out["boxes"]):
        assert not (mask == 1).any()
        return
    (box,) = out["boxes"]
    assert box.dtype == np.float32
    for inside in (mask == 1, image > 127):
        if inside.any():
            assert np.abs(box_of(inside) - box).max() <= 1
        else:
            assert min(box[2] - box[0], box[3] - box[1]) <= 1


def test_transforms_leave_their_input_alone():
    for step in (*CROPPING, *SCALING):
        image, boxes = noise(), np.array([[1, 2, 30, 20]], np.float32)
        record = {
            "image": image.copy(),
            "segmentation": image[..., 0].copy(),
            "boxes": boxes.copy(),
        }
        T.compose([step])(record, np.random.default_rng(0))
        np.testing.assert_array_equal(record["image"], image)
        np.testing.assert_array_equal(record["segmentation"], image[..., 0])
        np.testing.assert_array_equal(record["boxes"], boxes)


def test_pad_to_fills_below_and_right():
    image = noise(3, 4)
    out = apply("pad_to", {"image": image, "segmentation": image[..., 0]}, size=(5, 4), fill=9)
    np.testing.assert_array_equal(out["image"][:3], image)
    assert (out["image"][3:] == 9).all()
    assert out["image"].shape == (5, 4, 3)
    assert (out["segmentation"][3:] == 255).all()
    around = apply("pad_to", {"image": image}, size=(6, 9), center=True)["image"]
    np.testing.assert_array_equal(around[1:4, 2:6], image)
    assert around.sum() == image.sum()
    assert apply("pad_to", {"image": image}, size=2)["image"].shape == (3, 4, 3)


def test_center_crop():
    image = noise(10, 13)
    cut = apply("center_crop", {"image": image}, size=(4, 5))["image"]
    np.testing.assert_array_equal(cut, image[3:7, 4:9])
    # An odd rest: torchvision rounds half to even, (11 - 4) / 2 = 3.5 -> 4 and (10 - 5) / 2 -> 2.
    np.testing.assert_array_equal(
        apply("center_crop", {"image": noise(11, 10)}, size=(4, 5))["image"],
        noise(11, 10)[4:8, 2:7],
    )
    small = apply("center_crop", {"image": noise(2, 20)}, size=(4, 10))["image"]
    np.testing.assert_array_equal(small[1:3], noise(2, 20)[:, 5:15])
    assert not small[[0, 3]].any()


def test_random_crop_reaches_every_position_alike():
    image = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5, 1)
    rng = np.random.default_rng(0)
    corners = [
        int(apply("random_crop", {"image": image}, rng, size=4)["image"][0, 0, 0])
        for _ in range(1200)
    ]
    values, counts = np.unique(corners, return_counts=True)
    assert values.tolist() == [0, 1, 5, 6, 10, 11]
    assert counts.min() > 150  # 200 expected, 4 standard deviations


# -- random_resized_crop --------------------------------------------------------------------------


def windows(height, width, count, **options):
    """(top, left, height, width) of the windows that are drawn."""
    rng, image = np.random.default_rng(0), np.zeros((height, width, 3), np.uint8)
    drawn = []
    for _ in range(count):
        geometry = T.cropping.random_resized_crop({"image": image}, rng, size=2, **options).geometry
        left, top, right, bottom = geometry.inverse_boxes(np.float32([[0, 0, 2, 2]]))[0]
        drawn.append(np.round([top, left, bottom - top, right - left]).astype(int))
    return np.array(drawn)


def test_random_resized_crop_draws_area_and_aspect_uniformly():
    drawn = windows(200, 200, 4000, scale=(0.1, 0.5), ratio=(3 / 4, 4 / 3))
    top, left, height, width = drawn.T
    assert ((top >= 0) & (top + height <= 200) & (left >= 0) & (left + width <= 200)).all()
    area, aspect = height * width / 200**2, np.log(width / height) / np.log(4 / 3)
    assert 0.097 < area.min() < 0.103
    assert 0.495 < area.max() < 0.505
    quartiles = np.quantile(area, (0.25, 0.5, 0.75))
    np.testing.assert_allclose(quartiles, (0.2, 0.3, 0.4), atol=0.012)
    np.testing.assert_allclose(np.quantile(aspect, (0.25, 0.5, 0.75)), (-0.5, 0, 0.5), atol=0.06)
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06
    centre = (top + height / 2).mean(), (left + width / 2).mean()
    np.testing.assert_allclose(centre, (100, 100), atol=2)


@pytest.mark.parametrize(
    ("shape", "window"),
    [((10, 200), (0, 93, 10, 13)), ((200, 10), (93, 0, 13, 10)), ((100, 100), (0, 0, 100, 100))],
)
def test_random_resized_crop_falls_back_to_the_centre(shape, window):
    drawn = windows(*shape, 3, scale=(4.0, 5.0))  # no window is that large
    assert drawn.tolist() == [list(window)] * 3


def test_random_resized_crop_is_the_resized_window():
    def draw(seed):
        rng = np.random.default_rng(seed)
        return apply("random_resized_crop", {"image": noise(60, 80)}, rng, size=(24, 32))["image"]

    assert draw(5).shape == (24, 32, 3)
    np.testing.assert_array_equal(draw(5), draw(5))
    assert (draw(5) != draw(6)).any()


# -- composing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "random_resize_crop", "size": 4}, "'random_resized_crop'"),
        ({"size": 4}, "Unknown host transform ''"),
        ({"name": "resize", "sise": 4}, "Unknown parameter .*'resize' 'sise'.*'size'"),
        ({"name": "resize", "size": 4, "rng": 1}, "Unknown parameter .*'rng'"),
        ({"name": "center_crop"}, "'center_crop' needs the parameter 'size'"),
    ],
)
def test_compose_refuses(step, message):
    with pytest.raises(UserError, match=message):
        T.compose([{"name": "resize", "size": 8}, step])


@pytest.mark.parametrize("size", [0, -3, 2.5, "224", [4], [4, 5, 6], [4, 0], None])
def test_bad_sizes_are_named(size):
    apply = T.compose([{"name": "resize", "size": size}])
    with pytest.raises(UserError, match="positive integer"):
        apply({"image": noise()}, np.random.default_rng(0))


def test_bad_interpolation_names_the_nearest():
    with pytest.raises(UserError, match=r"'bilinaer'.*'bilinear'"):
        resize_image(noise(), 8, "bilinaer")


def test_compose_applies_in_order_and_knows_randomness():
    steps = [{"name": "resize", "size": (20, 30)}, {"name": "pad_to", "size": 40}]
    out = T.compose(steps)({"image": noise()}, np.random.default_rng(0))["image"]
    assert out.shape == (40, 40, 3)
    assert out[:20, :30].any()
    assert not out[20:].any()
    assert T.compose([])({"image": 1}, np.random.default_rng(0)) == {"image": 1}
    assert not T.compose(steps).random
    assert T.compose([*steps, {"name": "random_crop", "size": 8}]).random


def test_a_crop_is_drawn_again_where_one_class_has_too_much_of_it():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 30:] = 1
    record = {"image": np.zeros((40, 40, 3), np.uint8), "segmentation": mask}

    def mixed(max_share):
        windows = [
            apply("random_crop", record, np.random.default_rng(i), size=8, max_share=max_share)
            for i in range(60)
        ]
        return np.mean([0.25 <= w["segmentation"].mean() <= 0.75 for w in windows])

    assert mixed(1.0) < 0.3
    assert mixed(0.75) > 0.7
