"""R-CNN's parts against scikit-learn, OpenCV and numbers by hand."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from jaxvision.classical import linear, rcnn
from jaxvision.classical.linear import Linear
from jaxvision.errors import UserError


def objects(*rows):
    """Objects of ((x0, y0, x1, y1), class, crowd)."""
    boxes, label, crowd = zip(*rows) if rows else ((), (), ())
    return rcnn.Objects(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(label, np.int32), np.array(crowd, bool)
    )


def test_context_is_so_many_pixels_of_the_window():
    # 227 pixels with 16 on either side: the object has 195 of them.
    found = rcnn.with_context(np.float32([[10, 20, 10 + 195, 20 + 390]]), 227, 16)
    np.testing.assert_allclose(found, [[-6, -12, 221, 442]], atol=1e-4)
    with pytest.raises(UserError, match="Padding of 16 pixels leaves nothing of a window of 32"):
        rcnn.with_context(np.zeros((1, 4)), 32, 16)


def test_windows_are_warped_as_opencv_resizes():
    image = np.random.default_rng(0).random((24, 30, 3), np.float32)
    boxes = np.float32([[3, 5, 21, 17], [0, 0, 30, 24]])
    found = jax.jit(rcnn.warp, static_argnums=(2, 3))(image[None], boxes[None], 16, 0)[0]
    for window, (x0, y0, x1, y1) in zip(found, boxes.astype(int)):
        # Where a window is at the border of its cut-out OpenCV repeats it, ours sees on.
        expected = cv2.resize(image[y0:y1, x0:x1], (16, 16), interpolation=cv2.INTER_LINEAR)
        inner = slice(1, -1)
        np.testing.assert_allclose(window[inner, inner], expected[inner, inner], atol=1e-5)


def test_outside_of_the_image_is_the_mean():
    image = jnp.ones((1, 8, 8, 1))
    # Eight pixels become the middle eight of sixteen.
    warp = jax.jit(rcnn.warp, static_argnums=(2, 3))
    found = np.asarray(warp(image, jnp.float32([[[0, 0, 8, 8]]]), 16, 4))[0, 0, ..., 0]
    assert (found[5:11, 5:11] == 1).all()
    assert (found[[0, 1, -2, -1]] == 0).all()
    assert (found[:, [0, 1, -2, -1]] == 0).all()


def test_spatial_pyramid_by_hand():
    level = jnp.arange(48.0).reshape(6, 8, 1)
    # Cells from floor(9 / 8) + 1 = 2 to ceil(48 / 8) - 1 = 5, rows from 1 to 3.
    boxes = jnp.float32([[9, 5, 48, 32], [17, 9, 22, 14], [0, 0, 64, 48]])
    found = jax.jit(rcnn.spatial_pyramid, static_argnums=(2, 3))(level, boxes, 8, (2, 1))
    # Three rows in two bins share the middle one.
    np.testing.assert_array_equal(found[0], [19, 21, 27, 29, 29])
    # A box inside of a cell has that one: row 1, column 2.
    np.testing.assert_array_equal(found[1], [10] * 5)
    # From cell 1 on, as the paper's rounding has it.
    assert found[2, -1] == 47
    whole = jax.eval_shape(lambda x, y: rcnn.spatial_pyramid(x, y, 8), level, boxes)
    assert whole.shape == (3, 36 + 9 + 4 + 1)


def test_what_windows_are():
    there = objects(
        ([0, 0, 10, 10], 1, False), ([20, 20, 40, 40], 0, False), ([50, 50, 60, 60], 0, True)
    )
    proposals = np.float32([[0, 0, 10, 8], [20, 20, 40, 30], [50, 50, 60, 60], [80, 80, 90, 90]])
    found = rcnn.windows_of(proposals, there, 2)
    assert len(found.boxes) == 6  # the crowd is no window
    assert found.truth.tolist() == [-1, -1, -1, -1, 1, 0]
    np.testing.assert_allclose(
        found.overlap, [[0, 0.8], [0.5, 0], [1, 0], [0, 0], [0, 1], [1, 0]], atol=1e-6
    )
    assert found.nearest.tolist() == [0, 1, -1, -1, 0, 1]
    assert found.regressed.tolist() == [0, 4, 5]  # an overlap of 0.5 is too little
    empty = rcnn.windows_of(proposals, objects(), 2)
    assert empty.overlap.shape == (4, 2)
    assert len(empty.regressed) == 0
    crowd = rcnn.windows_of(proposals, objects(([0, 0, 9, 9], 0, True)), 1)
    assert (crowd.nearest == -1).all()


def test_batches_of_fine_tuning():
    there = objects(([0, 0, 10, 10], 1, False))
    proposals = np.float32([[0, 0, 10, 8], [0, 0, 10, 4], [30, 30, 50, 50]])
    windows = [rcnn.windows_of(proposals, there, 2), rcnn.windows_of(proposals, objects(), 2)]
    image, boxes, label = rcnn.Sampler(windows, seed=1)()
    assert (label[:32] == 2).all()
    assert (label[32:] == 0).all()
    assert (image[:32] == 0).all()
    assert set(map(tuple, boxes[:32].tolist())) == {(0, 0, 10, 8), (0, 0, 10, 10)}
    assert set(image[32:].tolist()) == {0, 1}
    np.testing.assert_array_equal(boxes, rcnn.Sampler(windows, seed=1)()[1])
    with pytest.raises(UserError, match="No proposal is a window of an object"):
        rcnn.Sampler(windows[1:])


@pytest.fixture(scope="module")
def scene():
    """Windows of four images, whose features tell their class and where their object is."""
    rng = np.random.default_rng(0)
    windows, features = [], []
    for _ in range(4):
        there = objects(
            *(([x, y, x + 20, y + 24], k, False) for k, (x, y) in enumerate([(5, 5), (60, 50)]))
        )
        near = np.repeat(there.boxes, 8, 0) + rng.uniform(-3, 3, (16, 4))
        corners = rng.uniform(0, 60, (40, 2))
        far = np.concatenate([corners, corners + rng.uniform(10, 30, (40, 2))], 1)
        one = rcnn.windows_of(np.concatenate([near, far]).astype(np.float32), there, 2)
        x = rng.normal(size=(len(one.boxes), 24))
        x[:, :2] += 3 * one.overlap
        x[:, 2:6] = one.boxes / 10
        windows.append(one)
        features.append(x.astype(np.float32))
    return windows, features


def test_the_svm_of_a_class_is_scikit_learns(scene):
    windows, features = scene
    found = rcnn.fit_svms(
        features.__getitem__, windows, c=0.01, rounds=0, first=1000, tolerance=1e-5
    )
    assert found.sizes == (sum(map(len, features)),)
    x, scale = np.concatenate(features), rcnn.unit_scale(iter(features))
    assert np.linalg.norm(x * scale, axis=1).mean() == pytest.approx(20, rel=1e-5)
    for k in range(2):
        label = np.concatenate([one.truth for one in windows]) == k
        used = label | (np.concatenate([one.overlap[:, k] for one in windows]) < 0.3)
        assert not used.all()
        peer = LinearSVC(C=0.01, intercept_scaling=10, dual=False, tol=1e-8)
        peer.fit(x[used] * scale, label[used])
        ours = linear.scores(found.model, x)[:, k]
        np.testing.assert_allclose(ours, peer.decision_function(x * scale), atol=2e-3)


def test_mining_ends_where_all_negatives_have_been_seen(scene):
    windows, features = scene
    everything = rcnn.fit_svms(
        features.__getitem__, windows, c=0.01, rounds=0, first=1000, tolerance=1e-5
    )
    mined = rcnn.fit_svms(features.__getitem__, windows, c=0.01, rounds=10, first=2)
    assert mined.sizes[0] == 4 * (2 + 2)
    assert mined.added[0] > 0
    assert mined.added[-1] == 0
    # Those that were never hard have no loss: what is learnt is nearly the same.
    x = np.concatenate(features)
    ours, other = (np.asarray(linear.scores(m.model, x)) for m in (mined, everything))
    np.testing.assert_allclose(ours, other, atol=0.25)
    assert mined.sizes[-1] < everything.sizes[0]


def test_nothing_to_learn_from_is_refused(scene):
    _, features = scene
    empty = [rcnn.windows_of(np.zeros((len(features[0]), 4)), objects(), 2)]
    with pytest.raises(UserError, match="There is no object to learn from"):
        rcnn.fit_svms(features.__getitem__, empty)
    with pytest.raises(UserError, match=r"No window overlaps an object by 0\.6"):
        rcnn.fit_boxes(features.__getitem__, empty)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_ridge_is_scikit_learns(shape):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape), rng.normal(size=(shape[0], 4))
    weight, bias = rcnn.ridge(x, y, 1000)
    peer = Ridge(alpha=1000).fit(x, y)
    np.testing.assert_allclose(weight, peer.coef_.T, atol=1e-10)
    np.testing.assert_allclose(bias, peer.intercept_, atol=1e-10)


def test_box_regression_is_scikit_learns_on_near_windows(scene):
    windows, features = scene
    found = rcnn.fit_boxes(features.__getitem__, windows, penalty=1000, scale=1.0)
    for k in range(2):
        xs, ys = [], []
        for one, x in zip(windows, features):
            for row in one.regressed:
                target = one.objects.boxes[one.nearest[row]]
                if one.objects.label[one.nearest[row]] != k:
                    continue
                size = one.boxes[row, 2:] - one.boxes[row, :2]
                moved = (target[:2] + target[2:] - one.boxes[row, :2] - one.boxes[row, 2:]) / 2
                xs.append(x[row])
                ys.append([*(moved / size), *np.log((target[2:] - target[:2]) / size)])
        assert len(xs) > 8
        peer = Ridge(alpha=1000).fit(np.array(xs, np.float64), np.array(ys))
        np.testing.assert_allclose(found.weight[k], peer.coef_.T, atol=1e-6)
        np.testing.assert_allclose(found.bias[k], peer.intercept_, atol=1e-5)


def test_detections_by_hand():
    boxes = jnp.float32([[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40], [0, 0, 10, 10]])
    features = jnp.float32([[2, -5], [1, -5], [-1, 3], [9, 9]])
    valid = jnp.array([True, True, True, False])
    model = Linear(jnp.eye(2), jnp.zeros(2))
    size = jnp.float32([38, 100])
    found = rcnn.detect(features, boxes, valid, model, None, size, 0.3, 3)
    # The second box of class 0 overlaps the first; those of -5 are below the least score.
    assert found.valid.tolist() == [True, True, True]
    assert found.labels.tolist() == [1, 0, 0]
    assert found.scores.tolist() == [3, 2, -1]
    # Cut to 38 rows.
    np.testing.assert_array_equal(found.boxes, [[30, 30, 40, 38], [0, 0, 10, 10], [30, 30, 40, 38]])
    move = rcnn.Regression(np.zeros((2, 2, 4), np.float32), np.zeros((2, 4), np.float32))
    move.bias[0, 0] = 0.5  # class 0: to the right by half of the width
    move.weight[1, 1, 3] = np.log(2) / 3  # class 1 at a feature of 3: twice as high
    found = rcnn.detect(features, boxes, valid, model, move, size, 0.3, 3)
    np.testing.assert_allclose(
        found.boxes, [[30, 25, 40, 38], [5, 0, 15, 10], [35, 30, 45, 38]], atol=1e-4
    )
