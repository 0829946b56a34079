"""Principal components against scikit-learn's, and beside a linear autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.decomposition
from sklearn.datasets import load_digits

from jaxvision import models
from jaxvision.classical.pca import (
    incremental_pca,
    inverse_transform,
    log_likelihood,
    pca,
    transform,
    update,
)
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def points():
    return load_digits().data.astype(np.float32)


def close(ours, theirs, tolerance=1e-4):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, tolerance, tolerance * np.abs(theirs).max())


def alike(found, peer, count):
    close(found.mean, peer.mean_)
    # Of directions in which the digits hardly vary the last digits are rounding.
    close(found.components[:count], peer.components_[:count], 2e-3)
    close(found.variance, peer.explained_variance_)
    close(found.ratio, peer.explained_variance_ratio_)
    close(found.singular_values, peer.singular_values_)
    assert found.noise_variance == pytest.approx(peer.noise_variance_, rel=1e-3)


@pytest.mark.parametrize(
    ("rows", "components"), [(1797, 10), (1797, 0.9), (40, 8), (40, None), (64, 5)]
)
def test_equals_sklearn(points, rows, components):
    peer = sklearn.decomposition.PCA(components, svd_solver="full").fit(points[:rows].astype(float))
    found = pca(points[:rows], components)
    assert (found.samples, len(found.components)) == (rows, peer.n_components_)
    alike(found, peer, min(10, len(found.components)))
    few = found._replace(components=found.components[:8], variance=found.variance[:8])
    for whiten in (False, True):
        peer.whiten = whiten
        close(transform(points, few, whiten), peer.transform(points)[:, :8], 3e-3)


def test_points_come_back(points):
    peer = sklearn.decomposition.PCA(12, svd_solver="full").fit(points.astype(float))
    found = pca(points, 12)
    for whiten in (True, False):
        peer.whiten = whiten
        back = inverse_transform(transform(points, found, whiten), found, whiten)
        close(back, peer.inverse_transform(peer.transform(points)))
    close(log_likelihood(points, found), peer.score_samples(points.astype(float)), 1e-3)


@pytest.mark.parametrize("sizes", [(1797,), (100, 300, 20, 1377), (600, 599, 598)])
def test_incremental_equals_sklearn(points, sizes):
    batches = np.split(points, np.cumsum(sizes)[:-1])
    peer = sklearn.decomposition.IncrementalPCA(10)
    for batch in batches:
        peer.partial_fit(batch.astype(float))
    found = incremental_pca(batches, 10)
    assert found.samples == 1797
    alike(found, peer, 10)
    close(found.total, peer.var_.sum() * 1797 / 1796)
    if len(sizes) == 1:
        whole = pca(points, 10)
        close(found.components, whole.components)


def test_far_from_the_origin(points):
    """The mean is taken out first, so that 32 bits suffice."""
    found, moved = pca(points, 5), pca(points + 1000, 5)
    close(moved.variance, found.variance, 1e-3)


def test_a_linear_autoencoder_reaches_its_error(points):
    """And no less: both keep as much of the points as eight numbers can."""
    images = jnp.asarray(points.reshape(-1, 8, 8, 1) / 16)
    flat = np.asarray(images).reshape(len(images), -1)
    found = pca(flat, 8)
    least = np.square(inverse_transform(transform(flat, found), found) - flat).sum(1).mean()
    network = models.create("ae_linear", size=8, latent=8)
    rule = optax.adam(optax.cosine_decay_schedule(0.03, 1500))

    @jax.jit
    def trained(params):
        def loss(params):
            return jnp.square(network.apply(params, images) - images).sum((1, 2, 3)).mean()

        def step(carry, _):
            params, state = carry
            error, gradient = jax.value_and_grad(loss)(params)
            updates, state = rule.update(gradient, state)
            return (optax.apply_updates(params, updates), state), error

        (params, _), errors = jax.lax.scan(step, (params, rule.init(params)), None, 1500)
        return loss(params), errors[0]

    error, first = trained(jax.jit(network.init)(jax.random.key(0), images[:1]))
    assert float(first) > 5 * least
    assert least * 0.9999 < float(error) < least * 1.01


def test_mistakes(points):
    for wrong in (0, 65, 1.5):
        with pytest.raises(UserError, match=f"components={wrong} is from 1 to 64 here"):
            pca(points, wrong)
    with pytest.raises(UserError, match="two or more finite points; got 1"):
        pca(points[:1])
    with pytest.raises(UserError, match="not finite"):
        pca(np.full((3, 2), np.nan, np.float32))
    with pytest.raises(UserError, match="no batch of points"):
        incremental_pca([], 3)
    with pytest.raises(UserError, match="components=5 is from 1 to 4"):
        incremental_pca([points[:4]], 5)
    with pytest.raises(UserError, match="Points have 63 dimensions; those before had 64"):
        update(update(None, points, 3), points[:, 1:], 3)
    with pytest.raises(UserError, match="All variance is in the components"):
        log_likelihood(points, pca(points))
