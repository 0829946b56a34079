"""Linear classifiers, fitted to convergence by L-BFGS.

Scores are `x @ weight + bias`. The convex objectives are those of scikit-learn, in its scale:
`|weight|^2 / 2 + c * sum of the samples' losses`.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError, unknown
from jaxvision.losses import cross_entropy

LOSSES = ("softmax", "squared_hinge", "crammer_singer", "weston_watkins")

# The corner of a hinge is rounded off within such a distance, from one fit to the next, so that
# L-BFGS, which needs a gradient that is continuous, can follow.
_ROUNDING = (1.0, 0.1, 0.01, 0.001)
_STALLED = 10  # iterations without a decrease that float32 can tell


class Linear(NamedTuple):
    """A linear classifier: a pytree. With `x` [n, d], `x @ weight + bias` are its scores."""

    weight: Float[Array, "d k"]
    bias: Float[Array, " k"]


class Fit(NamedTuple):
    """What `fit` found.

    Attributes:
      objective: the minimum, without any rounding.
      iterations: of L-BFGS.
      converged: whether the gradient got below `tolerance`, or the objective as low as float32
        can tell.
    """

    model: Linear
    objective: float
    iterations: int
    converged: bool


def scores(model: Linear, x: Float[Array | np.ndarray, "n d"]) -> Float[Array, "n k"]:
    """Each class's score."""
    return jnp.matmul(x, model.weight, precision=lax.Precision.HIGHEST) + model.bias


def fit(
    x: Float[Array | np.ndarray, "n d"],
    labels: Int[Array | np.ndarray, " n"],
    num_classes: int,
    loss: str = "softmax",
    *,
    c: float = 1.0,
    intercept_scaling: float = 1.0,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    weights: Float[Array | np.ndarray, "n k"] | None = None,
    start: Linear | None = None,
) -> Fit:
    """The linear classifier that minimises `|weight|^2 / 2 + c * sum(loss)`.

    Losses, with s the scores and y the true class:
      `softmax`: cross-entropy of the softmax; `sklearn.linear_model.LogisticRegression`. The bias
        is not penalised.
      `squared_hinge`: one SVM a class against the rest, sum_j max(0, 1 -+ s_j)^2;
        `sklearn.svm.LinearSVC`. In this and the following, as there, the bias is
        `intercept_scaling` times a weight that is penalised as all others are.
      `crammer_singer`: max(0, 1 + max of s_j, j != y, - s_y), Crammer and Singer 2001,
        https://www.jmlr.org/papers/v2/crammer01a.html; `LinearSVC(multi_class="crammer_singer")`.
      `weston_watkins`: sum over j != y of max(0, 1 + s_j - s_y), Weston and Watkins 1999: the
        multiclass SVM of most lectures.

    Minimised by L-BFGS (Liu and Nocedal 1989, https://doi.org/10.1007/BF01589116). The last two are
    not smooth; they are approached by rounded ones (Nesterov 2005,
    https://doi.org/10.1007/s10107-004-0552-5), to within 0.1% where data are of unit scale.

    Args:
      x: features, best of about unit scale.
      labels: 0 to `num_classes` - 1; with `squared_hinge` also -1, which is none of the classes.
      c: weight of the data against the penalty.
      intercept_scaling: the larger, the less the bias is penalised.
      tolerance: on the largest entry of the gradient of the mean objective.
      max_iterations: of L-BFGS, over all roundings together.
      weights: of each sample's loss in each class's SVM, by which the classes may have samples of
        their own; `squared_hinge` only.
      start: a classifier near the one that is sought, such as that of fewer samples; 0 by default.

    Raises:
      UserError: unknown loss, labels out of range, c or intercept_scaling not positive, or weights
        with another loss.
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    if len(x) != len(labels) or len(x) == 0:
        raise UserError(f"{len(x)} samples with {len(labels)} labels; give one for each.")
    least = -1 if loss == "squared_hinge" else 0
    if int(np.min(labels)) < least or int(np.max(labels)) >= num_classes:
        raise UserError(
            f"Labels are {int(np.min(labels))} to {int(np.max(labels))}; with {num_classes} "
            f"classes they are {least} to {num_classes - 1}."
        )
    if weights is not None and loss != "squared_hinge":
        raise UserError(f"Only squared_hinge takes weights of samples, not {loss}.")
    for name, value in (("c", c), ("intercept_scaling", intercept_scaling)):
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"{name} must be positive, got {value}.")
    x, labels = jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)
    # The parameter of a penalised bias is so many times smaller.
    unit = 1.0 if loss == "softmax" else intercept_scaling
    params = Linear(jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes))
    if start is not None:
        params = Linear(jnp.asarray(start.weight), jnp.asarray(start.bias) / unit)
    smooth = loss in ("softmax", "squared_hinge")
    roundings = (0.0,) if smooth else _ROUNDING
    iterations, converged = 0, True
    for rounding in roundings:
        left = max_iterations - iterations
        params, done, converged = _minimise(
            params, x, labels, weights, c, intercept_scaling, rounding, tolerance, left, loss
        )
        iterations += int(done)
    value = _objective(params, x, labels, weights, c, intercept_scaling, 0.0, loss) * c * len(x)
    return Fit(Linear(params.weight, params.bias * unit), float(value), iterations, bool(converged))


@partial(jax.jit, static_argnames="loss")
def _objective(
    params: Linear,
    x: Array,
    labels: Array,
    weights: Array | np.ndarray | None,
    c: Array | float,
    intercept_scaling: Array | float,
    rounding: Array | float,
    loss: str,
) -> Array:
    """The objective over c * n, of the order of one; `bias` as it is penalised."""
    penalty = jnp.sum(params.weight**2)
    if loss == "softmax":
        losses = cross_entropy(scores(params, x), labels)[0]
    else:
        penalty += jnp.sum(params.bias**2)
        s = scores(Linear(params.weight, intercept_scaling * params.bias), x)
        true = jax.nn.one_hot(labels, s.shape[-1])
        if loss == "squared_hinge":
            hinges = jnp.maximum(0, 1 - (2 * true - 1) * s) ** 2
            losses = jnp.sum(hinges if weights is None else weights * hinges, -1)
        else:
            # 1 + s_j - s_y for wrong classes, 0 for the true one.
            lacking = s + (1 - true) - jnp.sum(s * true, -1, keepdims=True)
            of = _rounded_max if loss == "crammer_singer" else _rounded_hinges
            losses = of(lacking, rounding)
    return losses.mean() + penalty / (2 * c * len(x))


def _rounded_max(lacking: Array, rounding: Array | float) -> Array:
    """The greatest, over a softmax of width `rounding`; between it and it - rounding * log k."""
    width = jnp.where(rounding > 0, rounding, 1)
    soft = width * (jax.nn.logsumexp(lacking / width, -1) - jnp.log(lacking.shape[-1]))
    return jnp.where(rounding > 0, soft, lacking.max(-1))


def _rounded_hinges(lacking: Array, rounding: Array | float) -> Array:
    """The sum of the positive ones, with a parabola from 0 to `rounding`."""
    width = jnp.where(rounding > 0, rounding, 1)
    parabola = jnp.clip(lacking, 0, width) ** 2 / (2 * width)
    rounded = jnp.where(lacking < width, parabola, lacking - width / 2)
    return jnp.sum(jnp.where(rounding > 0, rounded, jnp.maximum(lacking, 0)), -1)


@partial(jax.jit, static_argnames="loss")
def _minimise(
    params, x, labels, weights, c, intercept_scaling, rounding, tolerance, max_iterations, loss
):
    """(parameters, iterations, whether converged)."""

    def objective(params: Linear) -> Array:
        return _objective(params, x, labels, weights, c, intercept_scaling, rounding, loss)

    solver = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        params, state, done, best, stalled, _ = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        new = optax.apply_updates(params, updates)
        value, gradient = (optax.tree.get(state, key) for key in ("value", "grad"))
        largest = jnp.maximum(*(jnp.abs(leaf).max() for leaf in gradient))
        stalled = jnp.where(value < best, 0, stalled + 1)
        return new, state, done + 1, jnp.minimum(best, value), stalled, largest

    def unfinished(carry):
        *_, done, _, stalled, largest = carry
        return (done < max_iterations) & (stalled < _STALLED) & (largest > tolerance)

    start = (params, solver.init(params), 0, jnp.inf, 0, jnp.inf)
    params, _, done, _, stalled, largest = lax.while_loop(unfinished, step, start)
    return params, done, (largest <= tolerance) | (stalled >= _STALLED)
