"""Architecture search: the space, the children and the controller."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxvision.search import Controller, Data, Space, random_search, reinforce, train_children
from jaxvision.search.children import initial, logits
from jaxvision.search.controller import sample

SPACE = Space(layers=3, sides=(1, 3), widths=(2, 4), pool_after=(0,))


def test_the_space_is_counted():
    assert SPACE.choices == (2, 2, 2, 2, 2, 2, 2, 2, 2, 2)
    assert SPACE.kinds == (0, 1, 2, 0, 1, 2, 0, 1, 2, 3)
    assert SPACE.size == 2**10
    decisions = np.asarray(SPACE.uniform(jax.random.key(0), 500))
    assert decisions.min() == 0
    np.testing.assert_array_less(abs(decisions.mean(0) - 0.5), 0.1)


def test_masks_and_words():
    decisions = jnp.array([0, 1, 0, 1, 1, 1, 1, 0, 1, 1])
    taps, filters, inputs = SPACE.masks(decisions)
    np.testing.assert_array_equal(taps[0], [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(taps[2], [[0, 1, 0]] * 3)
    np.testing.assert_array_equal(filters, [[1, 1, 0, 0], [1] * 4, [1] * 4])
    np.testing.assert_array_equal(inputs, [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    assert SPACE.describe(np.asarray(decisions)) == "1x3x2, 3x3x4, 3x1x4+1"


def test_a_child_is_the_network_that_its_decisions_say():
    """Against the same network written with convolutions of its own sizes."""
    decisions = jnp.array([0, 1, 0, 1, 1, 1, 1, 0, 0, 1])  # 1x3x2, 3x3x4, 3x1x2+1
    params = initial(SPACE, jax.random.key(0), 1, 5)
    image = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))

    def layer(x, index, rows, columns, width):
        kernel = params[f"kernel{index}"].reshape(3, 3, -1, 4)
        kernel = kernel[rows, columns][:, :, : x.shape[-1], :width]
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu((y - y.mean((0, 1, 2))) / jnp.sqrt(y.var((0, 1, 2)) + 1e-5))

    every, middle = slice(None), slice(1, 2)
    first = layer(image, 0, middle, every, 2)
    first = first.reshape(6, 4, 2, 4, 2, 2).mean((2, 4))
    second = layer(first, 1, every, every, 4)
    both = second + jnp.pad(first, ((0, 0), (0, 0), (0, 0), (0, 2)))
    third = layer(both, 2, every, middle, 2)
    expected = third.mean((1, 2)) @ params["head"][:2] + params["head_bias"]
    found = jax.jit(partial(logits, SPACE))(params, decisions, image)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


@pytest.fixture(scope="module")
def data():
    digits = load_digits()
    images = jnp.asarray(digits.images[..., None] / 16, jnp.float32)
    labels = jnp.asarray(digits.target, jnp.int32)
    return Data(images[:400], labels[:400], images[400:600], labels[400:600])


def test_children_learn_and_are_reproducible(data):
    decisions = jnp.array([[0] * 10, [1] * 10])
    train = lambda: train_children(SPACE, decisions, jax.random.key(0), data, 10, 120)  # noqa: E731
    small, large = train()
    assert float(large) > 0.5
    assert float(large) > float(small)  # 3x3x4 throughout beats 1x1x2
    np.testing.assert_array_equal(train(), (small, large))


def test_the_controllers_probabilities():
    controller = Controller(SPACE, width=8)
    start = jnp.zeros((1, 10), jnp.int32)
    params = jax.jit(controller.init)(jax.random.key(0), None, start)["params"]
    draw = jax.jit(lambda params, key: sample(controller, params, key, 64))
    decisions = draw(params, jax.random.key(1))
    assert decisions.shape == (64, 10)
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(2)] * 10, indexing="ij"), -1).reshape(-1, 10)
    _, log_p, entropy = jax.jit(controller.apply)({"params": params}, None, every)
    np.testing.assert_allclose(jnp.exp(log_p).sum(), 1, 1e-4)
    # The entropy of a sequence is the expected sum of its decisions' entropies.
    np.testing.assert_allclose(
        (jnp.exp(log_p) * entropy).sum(), -(jnp.exp(log_p) * log_p).sum(), 1e-4
    )


@pytest.mark.slow
def test_reinforce_finds_what_is_rewarded_and_random_search_does_not_learn():
    target = jnp.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1])

    def accuracy(decisions, key):
        return (decisions == target).mean(-1)

    learnt = list(reinforce(SPACE, accuracy, 40, 32, seed=0))
    drawn = list(random_search(SPACE, accuracy, 40, 32, seed=0))
    late = lambda rounds: np.mean([one.accuracies.mean() for one in rounds[-5:]])  # noqa: E731
    assert late(learnt) > 0.85
    assert abs(late(drawn) - 0.5) < 0.05
    again = list(reinforce(SPACE, accuracy, 3, 32, seed=0))
    np.testing.assert_array_equal(again[2].decisions, learnt[2].decisions)
