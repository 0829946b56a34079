"""How generated images are judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import tasks
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.metrics import frechet_distance
from jaxvision.pretrained import Weights
from jaxvision.tasks import base
from jaxvision.tasks.judging import COLLECTION, Judge
from jaxvision.train.step import init_variables

KEY = jax.random.key(0)


def pictures(seed, count=12, side=8):
    return jax.random.uniform(jax.random.key(seed), (count, side, side, 1))


def test_pixels_alone_are_compared_without_a_network():
    judge = Judge()
    real, fake = pictures(0), 0.5 + 0.1 * pictures(1)
    rows = jax.device_get(judge.rows({}, real, fake))
    found = judge.scores(rows)
    assert set(found) == set(judge.names) == {"frechet_distance", "sample_spread"}
    flat = [np.asarray(2 * x - 1).reshape(12, 64) for x in (real, fake)]
    assert found["frechet_distance"] == pytest.approx(frechet_distance(*flat), rel=1e-5)
    spreads = [np.linalg.norm(x - x.mean(0), axis=1).mean() for x in flat]
    assert found["sample_spread"] == pytest.approx(spreads[1] / spreads[0], rel=1e-5)


def judged_config():
    config = tasks.default_config("generation")
    config.generation.judge.network = "mlp"
    config.generation.judge.options = {"hidden": (6,)}
    config.generation.judge.classes = 3
    config.generation.judge.weights = "given"
    config.model.name, config.model.options = "dcgan_generator", {"size": 8, "width": 4}
    config.generation.discriminator_options = {"width": 4}
    config.data.channels = 1
    return config


def test_a_network_judges_and_is_stored_with_the_run():
    config = judged_config()
    facts = type("Facts", (), {"class_names": (), "keypoint_order": ()})
    task = tasks.create(config, facts)
    assert task.names_weights(config)
    variables = init_variables(task, 0, base.image_spec((8, 8, 1)))
    trained = task.judge.model.init(jax.random.key(7), pictures(0), train=False)
    weights = Weights(torch_weights.to_state_dict(trained), "given")
    loaded = task.load_weights(config, variables, lambda *_: weights)
    jax.tree.map(np.testing.assert_array_equal, loaded[COLLECTION], dict(trained))
    jax.tree.map(np.testing.assert_array_equal, loaded["params"], variables["params"])

    batch = {
        "image": jnp.asarray(255 * pictures(2), jnp.uint8),
        "valid": jnp.ones(12, bool),
    }
    _, rows = jax.jit(task.evaluate)(loaded, batch, KEY)
    rows = jax.device_get(rows)
    assert rows["real_features"].shape == rows["fake_features"].shape == (12, 6)
    found = task.score(rows)
    assert set(found) == set(task.scores()) > {"fid", "kid", "recall", "inception_score"}
    expected = frechet_distance(rows["real_features"], rows["fake_features"])
    assert found["fid"] == pytest.approx(expected)
    np.testing.assert_allclose(rows["probabilities"].sum(1), 1, rtol=1e-5)


def test_what_does_not_change_has_exact_averages():
    values = jax.random.normal(KEY, (1000,))
    average = values
    for _ in range(5):
        average = base.moving_average(average, values, 0.999)
    np.testing.assert_array_equal(average, values)
    np.testing.assert_allclose(base.moving_average(values, values + 1, 0.75), values + 0.25, 1e-5)


def test_a_judge_needs_weights():
    config = judged_config()
    config.generation.judge.weights = ""
    with pytest.raises(UserError, match=r"set judge\.weights of mlp"):
        Judge.create(config.generation.judge)
