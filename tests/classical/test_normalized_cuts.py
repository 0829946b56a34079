"""Normalised cuts against SciPy's eigenvectors and scikit-image's cuts."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from skimage import data, graph, segmentation
from skimage.graph import _ncut as skimage_ncut
from skimage.transform import resize

from jaxvision.classical import normalized_cuts as cuts
from jaxvision.classical.pixel_features import features
from jaxvision.classical.superpixels import region_means
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def photo():
    small = resize(data.coffee(), (28, 40), anti_aliasing=True)
    return np.round(small * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pixels(photo):
    return cuts.pixel_graph(features(photo), 3)


def everything(whole):
    return jnp.ones(whole.nodes, bool)


def written_out(whole):
    """The weights as a matrix, from products with unit vectors."""
    return np.asarray(whole.times(jnp.eye(whole.nodes)))


def ncut_of(weights, labels):
    """By the definition, in 64 bits."""
    weights = weights.astype(float)
    total = 0.0
    for label in np.unique(labels):
        inside = labels == label
        total += weights[inside][:, ~inside].sum() / weights[inside].sum()
    return total


def test_weights_are_the_papers(photo):
    values = np.asarray(features(photo))
    weights = written_out(cuts.pixel_graph(values, 3, sigma=0.5, sigma_position=2.0))
    np.testing.assert_allclose(weights, weights.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(weights), 1, atol=1e-6)
    rng, width = np.random.default_rng(0), photo.shape[1]
    for i, j in rng.integers(0, weights.shape[0], (3000, 2)):
        j = i + j % 200 - 100 if 0 <= i + j % 200 - 100 < len(weights) else j
        (y, x), (v, u) = divmod(i, width), divmod(j, width)
        apart = (y - v) ** 2 + (x - u) ** 2
        alike = np.exp(-((values[y, x] - values[v, u]) ** 2).sum() / 0.25 - apart / 4)
        assert weights[i, j] == pytest.approx(alike if apart <= 9 else 0, abs=1e-5)


def test_eigenvectors_are_scipys(pixels):
    values, vectors, residuals = cuts.spectrum(pixels, everything(pixels), 6)
    weights = written_out(pixels).astype(float)
    scale = 1 / np.sqrt(weights.sum(1))
    symmetric = scipy.sparse.csr_array(weights * scale[:, None] * scale)
    expected, basis = scipy.sparse.linalg.eigsh(symmetric, 6, which="LA")
    np.testing.assert_allclose(values, 1 - expected[::-1], atol=5e-6)
    assert float(residuals.max()) < 1e-5
    unit = np.asarray(vectors) / scale
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = scipy.linalg.svdvals(unit @ basis)
    assert cosines.min() > 0.999


def test_a_graph_in_several_pieces_has_as_many_zeros():
    """The filter must not lose equal eigenvalues, nor vectors of a few pixels alone."""
    values = np.zeros((40, 48, 1), np.float32)
    values[:, 24:] = 100
    values[3:6, 3:7] = 50
    whole = cuts.pixel_graph(values, 3)
    eigenvalues, _, _ = cuts.spectrum(whole, everything(whole), 4)
    np.testing.assert_allclose(eigenvalues[:3], 0, atol=5e-6)
    assert eigenvalues[3] > 1e-4
    for found in (cuts.k_way_cut(whole, 3), cuts.recursive_cut(whole, 0.01)):
        assert found.ncut == pytest.approx(0, abs=1e-5)
        regions = found.labels.reshape(40, 48)
        assert len(np.unique(regions)) == 3
        assert all(len(np.unique(regions[values[..., 0] == v])) == 1 for v in (0, 50, 100))


def test_cuts_are_as_good_as_those_of_scipys_vectors(pixels):
    weights = written_out(pixels)
    scale = 1 / np.sqrt(weights.sum(1))
    symmetric = (weights * scale[:, None] * scale).astype(float)
    _, basis = np.linalg.eigh(symmetric)
    second = basis[:, -2] * scale
    thresholds = np.linspace(second.min(), second.max(), 10, endpoint=False)
    expected = min(ncut_of(weights, second > t) for t in thresholds)
    found = cuts.recursive_cut(pixels, 2.0, k=2)
    assert found.ncut <= 1.01 * expected
    assert found.ncut == pytest.approx(ncut_of(weights, found.labels), rel=1e-2)
    assert found.values[0] == pytest.approx(found.ncut, rel=1e-4)

    vectors = jnp.asarray(basis[:, :-6:-1] * scale[:, None], jnp.float32)
    expected = ncut_of(weights, np.asarray(cuts.discretised(vectors)))
    found = cuts.k_way_cut(pixels, 5)
    assert found.ncut <= 1.01 * expected
    assert found.ncut == pytest.approx(ncut_of(weights, found.labels), rel=1e-2)


def test_regions_are_cut_as_scikit_image_does_or_better():
    photo = data.coffee()[::3, ::3]
    labels = segmentation.slic(photo, 150, compactness=10, start_label=0)
    means = region_means(photo, labels, int(labels.max()) + 1)
    whole = cuts.region_graph(means, labels, 50.0)
    rag = graph.rag_mean_color(photo, labels, mode="similarity", sigma=2500.0)
    for node in rag.nodes():
        rag.add_edge(node, node, weight=1.0)
    d, w = skimage_ncut.DW_matrices(rag)
    np.testing.assert_allclose(whole.weights, w.toarray(), atol=1e-4)

    root = scipy.sparse.diags(1 / np.sqrt(d.diagonal()))
    second = np.linalg.eigh((root @ (d - w) @ root).toarray())[1][:, 1]
    thresholds = np.linspace(second.min(), second.max(), 10, endpoint=False)
    expected = min(skimage_ncut.ncut_cost(second > t, d, w) for t in thresholds)
    assert cuts.recursive_cut(whole, 2.0, k=2).ncut <= 1.01 * expected

    peer = graph.cut_normalized(labels, rag, thresh=0.05, rng=0)
    found = cuts.recursive_cut(whole, 0.05)
    # A better cut can be below the threshold where scikit-image's is not.
    assert len(np.unique(found.labels)) >= len(np.unique(peer))
    assert len(found.values) == len(np.unique(found.labels)) - 1
    assert (found.values <= 0.05).all()
    assert found.ncut == pytest.approx(ncut_of(w.toarray(), found.labels), rel=1e-3)


def test_recursion_ends_by_number_threshold_and_size(pixels):
    three = cuts.recursive_cut(pixels, 2.0, k=3)
    assert len(np.unique(three.labels)) == 3
    fine, coarse = cuts.recursive_cut(pixels, 0.1, k=4), cuts.recursive_cut(pixels, 0.02, k=4)
    assert 1 <= len(coarse.values) + 1 <= len(fine.values) + 1 <= 4
    assert (coarse.values <= 0.02).all()
    whole = cuts.recursive_cut(pixels, 2.0, smallest=pixels.nodes + 1)
    assert (whole.ncut, whole.labels.max()) == (0, 0)


def test_parts_of_a_graph_of_pixels_are_written_out(pixels):
    part = np.random.default_rng(0).choice(pixels.nodes, 60, replace=False)
    expected = written_out(pixels)[np.ix_(part, part)]
    np.testing.assert_allclose(cuts._matrix(pixels, part), expected, atol=1e-7)


def test_one_colour_and_tiny_graphs():
    flat = cuts.pixel_graph(np.zeros((20, 28, 1), np.float32), 2)
    halves = cuts.recursive_cut(flat, 2.0, k=2)
    assert np.bincount(halves.labels).min() > 0.4 * flat.nodes
    assert len(np.unique(cuts.k_way_cut(flat, 4).labels)) == 4
    single = cuts.pixel_graph(np.zeros((1, 1, 1), np.float32), 2)
    for found in (cuts.k_way_cut(single, 1), cuts.recursive_cut(single)):
        np.testing.assert_array_equal(found.labels, [0])
    two = cuts.region_graph(np.array([[0.0], [1.0]], np.float32), np.array([[0, 1]]), 1.0)
    np.testing.assert_array_equal(sorted(cuts.recursive_cut(two, 2.0).labels), [0, 1])
    assert sorted(cuts.k_way_cut(two, 2).labels) == [0, 1]


def test_bad_input_is_refused(pixels):
    with pytest.raises(UserError, match="k is from 1 to 1120"):
        cuts.k_way_cut(pixels, 0)
    with pytest.raises(UserError, match=r"threshold=-1.0 must be positive"):
        cuts.recursive_cut(pixels, -1.0)
    with pytest.raises(UserError, match=r"sigma=0.0 must be positive"):
        cuts.pixel_graph(np.zeros((4, 4, 1), np.float32), sigma=0.0)
    with pytest.raises(UserError, match="radius=0 must be positive"):
        cuts.pixel_graph(np.zeros((4, 4, 1), np.float32), radius=0)
