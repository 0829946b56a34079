"""Cross-entropy in every form the tasks need, the multiclass hinge, CapsNet's loss, penalties."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def cross_entropy(
    logits: Float[Array, "*b k"],
    targets: Shaped[Array, "*t"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | Float[Array, " k"] | None = None,
    temperature: float = 1.0,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Softmax cross-entropy of each sample, and the weight each carries in a mean.

    The weighted mean `sum(loss) / sum(weight)` is `torch.nn.CrossEntropyLoss`, label smoothing
    (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567) and class weights included.

    Args:
      logits: unnormalised scores, any floating type; computed in float32.
      targets: int class indices [*b], or probabilities [*b, k] (as mixup makes them).
      label_smoothing: mass spread uniformly over all classes.
      class_weights: weight of each class.
      temperature: what logits are divided by; above 1 the probabilities are flatter.

    Returns:
      (loss, weight), both float32 [*b]; `loss` already contains the weight.
    """
    logits = logits.astype(jnp.float32) / temperature
    count = logits.shape[-1]
    log_p = jax.nn.log_softmax(logits)
    weights = jnp.ones(count) if class_weights is None else jnp.asarray(class_weights, jnp.float32)
    if targets.ndim == logits.ndim:
        smooth = targets * (1 - label_smoothing) + label_smoothing / count
        return -jnp.sum(smooth * weights * log_p, -1), jnp.ones(logits.shape[:-1])
    picked = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    weight = weights[targets]
    loss = -(1 - label_smoothing) * weight * picked
    if label_smoothing:
        loss -= label_smoothing / count * jnp.sum(weights * log_p, -1)
    return loss, weight


def binary_cross_entropy(
    logits: Float[Array, "*b k"],
    targets: Float[Array, "*b k"],
    *,
    positive_weights: Float[Array, " k"] | None = None,
) -> Float[Array, "*b k"]:
    """Cross-entropy of the sigmoid of each class, as `torch.nn.BCEWithLogitsLoss` without mean.

    Args:
      logits: unnormalised scores, any floating type; computed in float32.
      targets: how far each class is there, 0 to 1.
      positive_weights: of each class's part that is there; PyTorch's `pos_weight`.

    Returns:
      float32 [*b, k].
    """
    logits = logits.astype(jnp.float32)
    there, absent = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    if positive_weights is not None:
        there = there * positive_weights
    return targets * there + (1 - targets) * absent


def multiclass_hinge(
    logits: Float[Array, "*b k"],
    targets: Shaped[Array, "*t"],
    *,
    margin: float = 1.0,
    over: Literal["sum", "max"] = "sum",
    class_weights: Sequence[float] | Float[Array, " k"] | None = None,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """The multiclass SVM's loss: what wrong classes' scores lack of being `margin` below the true.

    `sum`: over all wrong classes, sum of max(0, s_j - s_true + margin); Weston and Watkins,
    "Support Vector Machines for Multi-Class Pattern Recognition", 1999,
    https://www.esann.org/sites/default/files/proceedings/legacy/es1999-461.pdf.
    `max`: of the worst wrong class alone; Crammer and Singer, "On the Algorithmic Implementation of
    Multiclass Kernel-based Vector Machines", 2001, https://www.jmlr.org/papers/v2/crammer01a.html.

    Args:
      logits: scores, any floating type; computed in float32.
      targets: int class indices [*b], or probabilities [*b, k]: the expected loss is taken.
      margin: by how much the true class must win.
      over: `sum` or `max`.
      class_weights: weight of each class.

    Returns:
      (loss, weight), both float32 [*b], as `cross_entropy` gives them.
    """
    logits = logits.astype(jnp.float32)
    count = logits.shape[-1]
    weights = jnp.ones(count) if class_weights is None else jnp.asarray(class_weights, jnp.float32)

    def of_class(true: Array) -> Array:
        score = jnp.take_along_axis(logits, true[..., None], axis=-1)
        wrong = jnp.arange(count) != true[..., None]
        violation = jnp.where(wrong, jnp.maximum(logits - score + margin, 0), 0)
        return weights[true] * (violation.sum(-1) if over == "sum" else violation.max(-1))

    if targets.ndim < logits.ndim:
        return of_class(targets), weights[targets]
    each = lambda c: of_class(jnp.full(logits.shape[:-1], c))  # noqa: E731
    losses = jax.lax.map(each, jnp.arange(count))
    return jnp.sum(jnp.moveaxis(losses, 0, -1) * targets, -1), jnp.ones(logits.shape[:-1])


def margin_loss(
    lengths: Float[Array, "*b k"],
    targets: Shaped[Array, "*t"],
    *,
    present: float = 0.9,
    absent: float = 0.1,
    down_weight: float = 0.5,
    class_weights: Sequence[float] | Float[Array, " k"] | None = None,
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """The margin loss of capsules: equation 4 of Sabour et al., Dynamic Routing, 2017.

    https://arxiv.org/abs/1710.09829. The sum over classes of `max(0, present - length)^2` where the
    class is there and `down_weight * max(0, length - absent)^2` where it is not.

    Args:
      lengths: of the classes' capsules, between 0 and 1; computed in float32.
      targets: int class indices [*b], or probabilities [*b, k]: how far each class is there.
      present: what the length of a class that is there should reach.
      absent: below what that of one that is not should stay.
      down_weight: of classes that are not there.
      class_weights: weight of each class.

    Returns:
      (loss, weight), both float32 [*b], as `cross_entropy` gives them.
    """
    lengths = lengths.astype(jnp.float32)
    count = lengths.shape[-1]
    weights = jnp.ones(count) if class_weights is None else jnp.asarray(class_weights, jnp.float32)
    indexed = targets.ndim < lengths.ndim
    there = jax.nn.one_hot(targets, count) if indexed else targets
    loss = there * jnp.square(jnp.maximum(present - lengths, 0))
    loss += down_weight * (1 - there) * jnp.square(jnp.maximum(lengths - absent, 0))
    weight = jnp.ones(lengths.shape[:-1])
    if indexed:
        weight = weights[targets]
        return loss.sum(-1) * weight, weight
    return jnp.sum(loss * weights, -1), weight


def penalty(params: Any, *, l1: float = 0.0, l2: float = 0.0) -> Float[Array, ""]:
    """`l1 * sum|w| + l2 * sum w^2 / 2` over all kernels; biases and norms are free.

    Args:
      params: a parameter tree; leaves named `kernel` count.
    """
    total = jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if getattr(path[-1], "key", None) == "kernel":
            weight = leaf.astype(jnp.float32)
            total += l1 * jnp.sum(jnp.abs(weight)) + l2 / 2 * jnp.sum(weight**2)
    return total
