"""Mosaic and mixup of boxes, against boxes worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.data.augment import augment
from jaxvision.data.augment.joint import mixup_boxes, mosaic
from jaxvision.errors import UserError

HEIGHT, WIDTH = 40, 60
# The point (30, 20), and every image at half its size: the corners that are at it are known.
HALF = {"centre": (0.5, 0.5), "scale": (0.5, 0.5), "fill": 0.25}


def batch_of(boxes, crowd=None):
    """Image i is i/10 all over; its objects are of class 10 i + k."""
    boxes = np.float32(boxes)
    count, limit = boxes.shape[:2]
    valid = (boxes[..., 2:] > boxes[..., :2]).all(-1)
    value = np.arange(count, dtype=np.float32)[:, None, None, None] / 10
    return {
        "image": jnp.asarray(np.broadcast_to(value, (count, HEIGHT, WIDTH, 3))),
        "boxes": jnp.asarray(boxes),
        "box_label": jnp.asarray(10 * np.arange(count)[:, None] + np.arange(limit)),
        "box_valid": jnp.asarray(valid),
        "box_crowd": jnp.asarray(np.zeros_like(valid) if crowd is None else crowd),
        "box_area": jnp.asarray(np.where(valid, 100, 0).astype(np.float32)),
        "valid": jnp.ones(count, bool),
    }


def joined(batch, name, **parameters):
    apply = jax.jit(lambda key, batch: augment(key, batch, [{"name": name, **parameters}]))
    return jax.device_get(apply(jax.random.key(0), batch))


def objects(batch, row):
    valid = batch["box_valid"][row]
    return {
        int(n): b.tolist()
        for n, b in zip(batch["box_label"][row][valid], batch["boxes"][row][valid])
    }


def test_four_images_and_their_boxes_meet_at_a_point():
    whole = [0, 0, WIDTH, HEIGHT]
    out = joined(batch_of([[whole, [10, 10, 20, 30], *[[0] * 4] * 6]] * 4), "mosaic", **HALF)
    for row in range(4):
        image = out["image"][row]
        quarters = {0: (10, 10), 1: (10, 40), 2: (30, 10), 3: (30, 40)}
        for part, place in quarters.items():
            assert image[place][0] == pytest.approx((row - part) % 4 / 10)
        found = objects(out, row)
        left_upper = {0: (0, 0), 1: (30, 0), 2: (0, 20), 3: (30, 20)}
        assert len(found) == 8
        for part, (x, y) in left_upper.items():
            label = 10 * ((row - part) % 4)
            assert found[label] == [x, y, x + 30, y + 20]
            assert found[label + 1] == [x + 5, y + 5, x + 10, y + 15]
        np.testing.assert_array_equal(out["box_area"][row][out["box_valid"][row]], 25)


def test_what_lies_beyond_the_point_is_cut_off_or_dropped():
    # At their own size around (30, 20) the first image shows its lower right quarter, and so on.
    boxes = [[40, 25, 50, 35], [20, 10, 40, 30], [29, 10, 59, 30], [0, 0, 28, 19]]
    zero = [0, 0, 0, 0]
    batch = batch_of([[*boxes, zero, zero]] + [[zero] * 6] * 3)
    out = joined(batch, "mosaic", centre=(0.5, 0.5), scale=(1.0, 1.0), least_area=0.3)
    # Moved by (-30, -20); the second and the third keep 1/4 and 29/60 of their area.
    assert objects(out, 0) == {0: [10, 5, 20, 15], 2: [0, 0, 29, 10]}
    few = joined(batch, "mosaic", centre=(0.5, 0.5), scale=(1.0, 1.0), least_area=0.2)
    assert objects(few, 0) == {0: [10, 5, 20, 15], 1: [0, 0, 10, 10], 2: [0, 0, 29, 10]}
    crowd = np.zeros((4, 6), bool)
    crowd[0, 1] = True  # of which any part is still to be ignored
    out = joined(
        {**batch, "box_crowd": jnp.asarray(crowd)},
        "mosaic", centre=(0.5, 0.5), scale=(1.0, 1.0), least_area=0.3,
    )  # fmt: skip
    assert set(objects(out, 0)) == {0, 1, 2}
    # As the lower right part (of image 3), what is shown is its upper left quarter.
    assert objects(out, 3)[3] == [30, 20, 58, 39]


def test_pixels_follow_as_boxes_do():
    rng = np.random.default_rng(0)
    batch = batch_of([[[0] * 4]] * 4)
    batch["image"] = jnp.zeros_like(batch["image"])
    box = [12, 8, 52, 36]
    batch["boxes"] = jnp.tile(jnp.float32(box), (4, 4, 1)) * jnp.eye(4)[:1, :, None]
    batch["box_label"] = jnp.tile(jnp.arange(4), (4, 1))
    batch["box_valid"] = jnp.tile(jnp.arange(4) == 0, (4, 1))
    for key in ("box_crowd", "box_area"):
        batch[key] = jnp.tile(batch[key], (1, 4))
    batch["image"] = batch["image"].at[:, box[1] : box[3], box[0] : box[2]].set(1.0)
    apply = jax.jit(
        lambda key: augment(key, batch, [{"name": "mosaic", "fill": 0.0, "least_area": 0.0}])
    )
    for seed in rng.integers(0, 1000, 3):
        out = jax.device_get(apply(jax.random.key(seed)))
        for row in range(4):
            inside = np.zeros((HEIGHT, WIDTH), bool)
            border = np.zeros((HEIGHT, WIDTH), bool)
            for x0, y0, x1, y1 in out["boxes"][row][out["box_valid"][row]]:
                inside[round(y0) : round(y1), round(x0) : round(x1)] = True
                border[int(y0) - (y0 > 0) : int(y1) + 2, int(x0) - (x0 > 0) : int(x1) + 2] = True
                border[int(y0) + 2 : int(y1) - 1, int(x0) + 2 : int(x1) - 1] = False
            bright = out["image"][row, ..., 0] > 0.5
            np.testing.assert_array_equal(bright[~border], inside[~border])
            assert bright.any()


def test_of_more_objects_than_fit_the_largest_stay():
    boxes = [[[0, 0, 10 + 4 * i, 10 + i], [0, 0, 6, 6]] for i in range(4)]
    out = joined(batch_of(boxes), "mosaic", **HALF)
    for row in range(4):
        assert set(objects(out, row)) == {20, 30}  # of classes 10 i the largest, i = 2 and 3


def test_mixup_unites_boxes():
    boxes = np.zeros((3, 4, 4))
    boxes[:, 0] = [0, 0, 9, 9]
    boxes[:, 1] = [1, 1, 4, 4]
    batch = batch_of(boxes)
    out = joined(batch, "mixup_boxes")
    for row in range(3):
        labels = {10 * row, 10 * row + 1, 10 * ((row - 1) % 3), 10 * ((row - 1) % 3) + 1}
        assert set(objects(out, row)) == labels
        low, high = sorted((row / 10, (row - 1) % 3 / 10))
        assert low <= out["image"][row].min() <= out["image"][row].max() <= high
    np.testing.assert_array_equal(out["box_area"], 100)
    three = joined(
        {k: v[:, :3] if k.startswith("box") else v for k, v in batch.items()}, "mixup_boxes"
    )
    assert set(objects(three, 1)) in ({10, 11, 0}, {10, 0, 1}, {10, 11, 0})


@pytest.mark.parametrize("name", ["mosaic", "mixup_boxes"])
def test_probability_key_and_what_cannot_be_joined(name):
    zero = [0, 0, 0, 0]
    batch = batch_of([[[0, 0, 9, 9], zero], [[1, 2, 3, 4], zero]])
    same = joined(batch, name, probability=0.0)
    for key in batch:
        np.testing.assert_array_equal(same[key], batch[key], err_msg=key)
    draw = {"mosaic": mosaic, "mixup_boxes": mixup_boxes}[name]
    shape = (64, 8, 8, 3)
    drawn = [draw(jax.random.key(seed), shape, probability=0.5) for seed in (0, 0, 1)]
    used = [np.asarray(one.window[:, 1, 2] > 0) for one in drawn]
    np.testing.assert_array_equal(used[0], used[1])
    assert (used[0] != used[2]).any()
    assert 16 < used[0].sum() < 48
    for key, value in (("label", jnp.zeros(2, int)), ("segmentation", jnp.zeros((2, 40, 60), int))):
        with pytest.raises(UserError, match=f"makes one image of several.* with {key}"):
            augment(jax.random.key(0), {**batch, key: value}, [{"name": name}])
    masks = jnp.zeros((2, 2, HEIGHT, -(-WIDTH // 8)), jnp.uint8)
    with pytest.raises(UserError, match="does not carry along instance_masks"):
        augment(jax.random.key(0), {**batch, "instance_masks": masks}, [{"name": name}])
