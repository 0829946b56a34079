"""Linear classifiers against scikit-learn's: the same minimum of the same objective."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jaxtyping import TypeCheckError
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from jaxvision.classical import linear
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


def objective(weight, bias, x, y, c, loss, intercept_scaling=1.0):
    """Its definition, in float64; weight [d, k]."""
    s = x.astype(np.float64) @ weight + bias
    rows = np.arange(len(y))
    penalty = (weight**2).sum() / 2
    if loss == "softmax":
        losses = np.log(np.exp(s - s.max(1, keepdims=True)).sum(1)) + s.max(1) - s[rows, y]
    else:
        penalty += ((bias / intercept_scaling) ** 2).sum() / 2
        sign = np.where(np.arange(s.shape[1]) == y[:, None], 1, -1)
        lacking = np.maximum(s - s[rows, y][:, None] + (sign < 0), 0)
        losses = {
            "squared_hinge": lambda: (np.maximum(1 - sign * s, 0) ** 2).sum(1),
            "crammer_singer": lambda: lacking.max(1),
            "weston_watkins": lambda: lacking.sum(1),
        }[loss]()
    return penalty + c * losses.sum()


@pytest.mark.parametrize("c", [0.01, pytest.param(1.0, marks=pytest.mark.slow)])
def test_softmax_equals_logistic_regression(digits, c):
    x, y = digits
    peer = LogisticRegression(C=c, tol=1e-6, max_iter=5000).fit(x.astype(float), y)
    found = linear.fit(x, y, 10, "softmax", c=c)
    assert found.converged
    np.testing.assert_allclose(found.model.weight, peer.coef_.T, atol=5e-3 * abs(peer.coef_).max())
    bias = found.model.bias - found.model.bias.mean()  # a shift of all changes nothing
    np.testing.assert_allclose(bias, peer.intercept_ - peer.intercept_.mean(), atol=1e-2)
    expected = objective(peer.coef_.T, peer.intercept_, x, y, c, "softmax")
    assert found.objective == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scaling", [1.0, 4.0])
def test_squared_hinge_equals_linear_svc(digits, scaling):
    x, y = digits
    peer = LinearSVC(C=0.1, tol=1e-10, max_iter=10**5, dual=False, intercept_scaling=scaling)
    peer.fit(x.astype(float), y)
    found = linear.fit(x, y, 10, "squared_hinge", c=0.1, intercept_scaling=scaling)
    assert found.converged
    np.testing.assert_allclose(found.model.weight, peer.coef_.T, atol=5e-3)
    np.testing.assert_allclose(found.model.bias, peer.intercept_, atol=1e-2)
    expected = objective(peer.coef_.T, peer.intercept_, x, y, 0.1, "squared_hinge", scaling)
    assert found.objective == pytest.approx(expected, rel=1e-5)


def test_crammer_singer_reaches_the_minimum_of_liblinear(digits):
    x, y = digits
    peer = LinearSVC(C=0.1, tol=1e-8, max_iter=10**5, multi_class="crammer_singer", random_state=0)
    peer.fit(x.astype(float), y)
    expected = objective(peer.coef_.T, peer.intercept_, x, y, 0.1, "crammer_singer")
    found = linear.fit(x, y, 10, "crammer_singer", c=0.1)
    assert found.objective == pytest.approx(expected, rel=1e-3)
    agree = np.mean(linear.scores(found.model, x).argmax(-1) == peer.predict(x.astype(float)))
    assert agree > 0.995


def test_weston_watkins_reaches_the_minimum_of_the_quadratic_programme():
    # Its dual, solved by scipy: max sum(a) - |w(a)|^2 / 2 for 0 <= a <= c.
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 40)
    x = (rng.normal(size=(40, 4)) + np.eye(3, 4)[y] * 2).astype(np.float32)
    ones = np.concatenate([x.astype(float), np.ones((40, 1))], 1)
    pairs = [(i, j) for i in range(40) for j in range(3) if j != y[i]]
    rows = np.stack([np.outer(ones[i], np.eye(3)[y[i]] - np.eye(3)[j]).ravel() for i, j in pairs])
    gram, c = rows @ rows.T, 0.5
    dual = scipy.optimize.minimize(
        lambda a: (a @ gram @ a / 2 - a.sum(), gram @ a - 1),
        np.zeros(len(pairs)),
        jac=True,
        bounds=[(0, c)] * len(pairs),
        options={"maxiter": 20000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-9},
    )
    found = linear.fit(x, y, 3, "weston_watkins", c=c)
    assert found.objective == pytest.approx(-dual.fun, rel=1e-3)
    model = found.model
    assert found.objective == pytest.approx(
        objective(np.asarray(model.weight), np.asarray(model.bias), x, y, c, "weston_watkins"), 1e-5
    )


def test_weights_give_each_class_samples_of_its_own():
    rng = np.random.default_rng(3)
    y = rng.integers(-1, 2, 60)  # -1 is none of the classes
    x = (rng.normal(size=(60, 5)) + y[:, None]).astype(np.float32)
    used = rng.random((60, 2)) < 0.7
    weights = np.pad(used.astype(np.float32), ((0, 4), (0, 0)))
    padded = np.pad(x, ((0, 4), (0, 0)))  # rows that count nowhere
    found = linear.fit(
        padded, np.pad(y, (0, 4)), 2, "squared_hinge", c=0.3 * 60 / 64, weights=weights * 64 / 60
    )
    for k in range(2):
        rows = used[:, k]
        peer = LinearSVC(C=0.3, dual=False, tol=1e-8).fit(x[rows], y[rows] == k)
        ours = linear.scores(found.model, x)[:, k]
        np.testing.assert_allclose(ours, peer.decision_function(x), atol=2e-3)
    with pytest.raises(UserError, match="Only squared_hinge takes weights of samples, not softmax"):
        linear.fit(x, np.abs(y), 2, weights=weights[:60])


@pytest.mark.parametrize("loss", ["softmax", "squared_hinge"])
def test_a_start_at_the_minimum_needs_no_steps(loss):
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 40)
    x = (rng.normal(size=(40, 3)) + y[:, None]).astype(np.float32)
    options = {"c": 0.5, "intercept_scaling": 10.0, "tolerance": 1e-5}
    found = linear.fit(x, y, 2, loss, **options)
    again = linear.fit(x, y, 2, loss, start=found.model, **{**options, "tolerance": 1e-4})
    assert found.iterations > 3
    assert again.iterations <= 1
    np.testing.assert_allclose(again.model.weight, found.model.weight, atol=1e-3)
    np.testing.assert_allclose(again.model.bias, found.model.bias, atol=1e-2)


def test_two_classes_and_constant_features():
    x = np.array([[0.0, 1], [1, 1], [2, 1], [3, 1]], np.float32)
    y = np.array([0, 0, 1, 1])
    for loss in ("softmax", "weston_watkins"):
        found = linear.fit(x, y, 2, loss, c=10.0)
        np.testing.assert_array_equal(linear.scores(found.model, x).argmax(-1), y)


def test_bad_input_is_refused():
    x, y = np.zeros((3, 2), np.float32), np.array([0, 1, 2])
    with pytest.raises(UserError, match=r"Unknown loss 'sotfmax'\. Did you mean 'softmax'"):
        linear.fit(x, y, 3, "sotfmax")
    with pytest.raises(UserError, match="with 2 classes they are 0 to 1"):
        linear.fit(x, y, 2)
    # Where annotations are checked at run time, they notice it first.
    with pytest.raises((UserError, TypeCheckError), match=r"3 samples with 2 labels|Type-check"):
        linear.fit(x, y[:2], 3)
    with pytest.raises(UserError, match="c must be positive, got 0"):
        linear.fit(jnp.asarray(x), y, 3, c=0.0)
