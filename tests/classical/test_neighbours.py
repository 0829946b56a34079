"""Neighbours and votes against scikit-learn's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from jaxvision.classical import neighbours
from jaxvision.classical.neighbours import nearest_neighbours, vote
from jaxvision.errors import UserError

SKLEARN = {"l1": "manhattan", "l2": "euclidean", "cosine": "cosine"}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data.astype(np.float32), data.target


@pytest.mark.parametrize("block", [0, 100])
@pytest.mark.parametrize("metric", SKLEARN)
def test_distances_equal_sklearn(metric, block):
    rng = np.random.default_rng(0)
    keys, queries = rng.normal(size=(530, 37)), rng.normal(size=(130, 37))
    keys, queries = (x.astype(np.float32) + 5 for x in (keys, queries))  # far from the origin
    expected = NearestNeighbors(algorithm="brute", metric=SKLEARN[metric]).fit(keys.astype(float))
    distances, indices = expected.kneighbors(queries.astype(float), 7)
    ours, places = nearest_neighbours(queries, keys, 7, metric, block=block)
    np.testing.assert_allclose(ours, distances, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(places, indices)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("metric", SKLEARN)
def test_classes_equal_sklearn(digits, metric, weights):
    x, y = digits
    if metric != "cosine":
        x = x + np.random.default_rng(0).normal(size=x.shape).astype(np.float32) / 100  # no ties
    peer = KNeighborsClassifier(4, weights=weights, algorithm="brute", metric=SKLEARN[metric])
    expected = peer.fit(x[:1200].astype(float), y[:1200]).predict(x[1200:].astype(float))
    distances, indices = nearest_neighbours(x[1200:], x[:1200], 4, metric)
    found = vote(jnp.asarray(y[:1200])[indices], distances, 10, weights)
    np.testing.assert_array_equal(found, expected)
    assert np.mean(found == y[1200:]) > 0.94


def test_identical_vectors_are_at_distance_zero_and_the_first_comes_first(digits):
    x, _ = digits
    keys = np.concatenate([x[:300], x[:300], x[:300]])
    for metric in ("l1", "l2", "cosine"):
        distances, indices = nearest_neighbours(x[:50], keys, 3, metric, block=128)
        np.testing.assert_allclose(distances, 0, atol=1e-12)
        np.testing.assert_array_equal(indices, np.arange(50)[:, None] + [0, 300, 600])


def test_the_vote_breaks_ties_as_sklearn_does():
    labels = jnp.array([[2, 1, 1, 2], [2, 0, 1, 1], [2, 1, 1, 1], [3, 1, 1, 1]])
    distances = jnp.array([[1.0, 1, 1, 1], [1, 2, 3, 4], [0.1, 1, 1, 1], [0.0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(vote(labels, distances, 4), [1, 1, 1, 1])
    # A zero distance outvotes everything else; of the two at zero the smaller class wins.
    np.testing.assert_array_equal(vote(labels, distances, 4, "distance"), [1, 2, 2, 1])


def test_a_zero_vector_is_at_cosine_distance_one():
    keys = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], np.float32)
    distances, indices = nearest_neighbours(keys[:2], keys, 3, "cosine")
    np.testing.assert_allclose(distances, [[1, 1, 1], [0, 1, 2]], atol=1e-6)
    np.testing.assert_array_equal(indices, [[0, 1, 2], [1, 0, 2]])


@pytest.mark.parametrize(("metric", "block"), [("l1", 512), ("l2", 4096), ("cosine", 4096)])
def test_temporaries_do_not_grow_with_the_data(metric, block):
    keys = jax.ShapeDtypeStruct((60_000, 784), jnp.float32)
    search = neighbours._search_l1 if metric == "l1" else neighbours._search_product
    prepared = jax.eval_shape(lambda k: neighbours._blocks_of_keys(k, block, metric), keys)
    queries = jax.ShapeDtypeStruct((block, 784), jnp.float32)
    compiled = search.lower(queries, keys, prepared, 5, metric).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**29


def test_bad_input_is_refused():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(UserError, match=r"Unknown metric 'l3'\. Did you mean 'l"):
        nearest_neighbours(x, x, 1, "l3")
    with pytest.raises(UserError, match="k is from 1 to 3"):
        nearest_neighbours(x, x, 4)
    # Where annotations are checked at run time, they notice it first.
    with pytest.raises((UserError, TypeCheckError), match=r"2 dimensions, keys 1|Type-check"):
        nearest_neighbours(x, x[:, :1], 1)
    with pytest.raises(UserError, match=r"Did you mean 'uniform'"):
        vote(jnp.zeros((1, 1), int), jnp.zeros((1, 1)), 2, "unifrom")
    assert nearest_neighbours(x[:0], x, 2)[0].shape == (0, 2)
