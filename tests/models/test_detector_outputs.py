"""What detectors choose of what they predict."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.models.detection.outputs import best_of_level


@pytest.mark.parametrize(("places", "classes", "candidates"), [(30, 5, 12), (9, 3, 20), (4, 1, 9)])
def test_the_best_pairs_of_place_and_class_are_those_of_all(places, classes, candidates):
    rng, images = np.random.default_rng(0), 200
    scores = rng.integers(0, 6, (images, places, classes)) / 5  # many are equal
    coded = rng.normal(size=(images, places, 4)).astype(np.float32)
    boxes, best, labels = best_of_level(
        jnp.asarray(scores, jnp.float32),
        jnp.asarray(coded),
        lambda coded, place: coded + place[..., None],
        score_threshold=0.3,
        candidates=candidates,
    )
    flat = np.where(scores > 0.3, scores, -1).reshape(images, -1)
    order = np.argsort(-flat, 1, kind="stable")[:, :candidates]
    np.testing.assert_allclose(best, np.take_along_axis(flat, order, 1), rtol=1e-6)
    kept = np.asarray(best) > 0
    np.testing.assert_array_equal(np.asarray(labels)[kept], (order % classes)[kept])
    place = order // classes
    expected = np.take_along_axis(coded, place[..., None], 1) + place[..., None]
    np.testing.assert_allclose(np.asarray(boxes)[kept], expected[kept], rtol=1e-6)
