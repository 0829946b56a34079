"""Which anchor, proposal or query learns which box: matching by overlap, ATSS, Hungarian, sampling.

Boxes are padded; `valid` says which count. Matches are indices of boxes, and negative where there
is none: `BACKGROUND`, or `IGNORED` where it is neither.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxvision.ops.boxes import pairwise_iou, to_centers

BACKGROUND, IGNORED = -1, -2


def match_boxes(
    overlaps: Float[Array, "g n"],
    valid: Bool[Array, " g"],
    high: float,
    low: float,
    allow_low_quality: bool = False,
) -> Int[Array, " n"]:
    """The box that each anchor overlaps most, if by enough: torchvision's `Matcher`.

    Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497, section 3.1.2.

    Args:
      overlaps: IoU of boxes and anchors.
      valid: which boxes count.
      high: from this IoU on an anchor is matched.
      low: below it an anchor is background.
      allow_low_quality: whether anchors that no other overlaps a box more than, ties included, are
        matched as well, to the box that *they* overlap most. As in torchvision a box that overlaps
        no anchor at all ties with all of them.

    Returns:
      The index of a box, the first of several that are overlapped alike; `BACKGROUND` below `low`;
      `IGNORED` from there to `high`.
    """
    count = overlaps.shape[1]
    # In memory, or XLA's CPU backend works out the overlaps again for each use.
    overlaps = lax.optimization_barrier(jnp.where(valid[:, None], overlaps, -1.0))
    highest = jnp.where(valid, jnp.max(overlaps, 1), jnp.inf)

    # Row by row, as the same backend reduces over a leading axis several times slower.
    def of_box(box: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        value, best, favourite = state
        row = overlaps[box]
        higher = row > value
        favourite |= row == highest[box]
        return jnp.where(higher, row, value), jnp.where(higher, box, best), favourite

    start = jnp.full(count, -jnp.inf), jnp.zeros(count, jnp.int32), jnp.zeros(count, bool)
    value, best, favourite = lax.fori_loop(0, len(valid), of_box, start)
    matches = jnp.where(value < high, jnp.where(value < low, BACKGROUND, IGNORED), best)
    return jnp.where(favourite, best, matches) if allow_low_quality else matches


def claim_best_anchors(
    matches: Int[Array, " n"],
    overlaps: Float[Array, "g n"],
    valid: Bool[Array, " g"],
    winner: Literal["first", "last"] = "last",
) -> Int[Array, " n"]:
    """Gives each box the anchor that overlaps it most, whatever that was matched to.

    Liu et al., SSD, 2015, https://arxiv.org/abs/1512.02325, section 2.2.

    Args:
      matches: see `match_boxes`.
      overlaps, valid: see `match_boxes`.
      winner: which of several boxes has an anchor that all claim: the last one in torchvision's
        SSD, the first one in EfficientDet.
    """
    count = overlaps.shape[0]
    best = jnp.argmax(overlaps, 1)
    boxes = jnp.arange(count, dtype=jnp.int32)
    # The larger number wins; 0 is nobody.
    rank = boxes + 1 if winner == "last" else count - boxes
    claims = jnp.zeros(matches.shape, jnp.int32).at[best].max(jnp.where(valid, rank, 0))
    return jnp.where(claims > 0, claims - 1 if winner == "last" else count - claims, matches)


def atss(
    anchors: Sequence[Float[Array, "_ 4"]],
    boxes: Float[Array, "g 4"],
    valid: Bool[Array, " g"],
    top: int = 9,
) -> Int[Array, " n"]:
    """Adaptive training sample selection: matches by a threshold of each box's own.

    Of every level the `top` anchors nearest to a box's centre are candidates. Those are matched
    whose IoU is at least the mean plus the standard deviation of all candidates', and whose centre
    is in the box. Zhang et al., 2019, https://arxiv.org/abs/1912.02424, algorithm 1.

    Args:
      anchors: of each level.
      boxes: the boxes.
      valid: which boxes count.
      top: candidates of a level.

    Returns:
      The index of a box for each anchor, of several that with the highest IoU; else `BACKGROUND`.
    """
    all_anchors = jnp.concatenate(list(anchors))
    overlaps = pairwise_iou(boxes, all_anchors)
    middle, place = to_centers(boxes)[:, :2], to_centers(all_anchors)[:, :2]
    distance = jnp.sqrt(jnp.sum((middle[:, None] - place) ** 2, -1))
    chosen, start = [], 0
    for level in anchors:
        near = -distance[:, start : start + len(level)]
        chosen.append(lax.top_k(near, min(top, len(level)))[1] + start)
        start += len(level)
    candidates = jnp.concatenate(chosen, 1)
    values = jnp.take_along_axis(overlaps, candidates, 1)
    spread = jnp.std(values, 1, ddof=min(1, values.shape[1] - 1))
    sides = jnp.concatenate([place - boxes[:, None, :2], boxes[:, None, 2:] - place], -1)
    inside = jnp.take_along_axis(jnp.min(sides, -1) > 0.01, candidates, 1)
    good = (values >= (jnp.mean(values, 1) + spread)[:, None]) & inside & valid[:, None]
    rows = jnp.arange(len(boxes))[:, None]
    found = jnp.full(overlaps.shape, -1.0).at[rows, candidates].set(jnp.where(good, values, -1.0))
    best = jnp.argmax(found, 0).astype(jnp.int32)
    return jnp.where(jnp.max(found, 0) >= 0, best, BACKGROUND)


def _path_to_free_row(
    costs: Array, owner: Array, by_column: Array, by_row: Array, column: Array
) -> tuple[Array, Array, Array, Array]:
    """Dijkstra over rows, from a column (none if it is -1) to the nearest row without an owner.

    Returns:
      That row, or -1 where all are infinitely far; how far it is; the column before each row on its
      path; by how much each row that was reached is nearer.
    """
    rows = costs.shape[1]

    def reach_another(state: tuple[Array, ...]) -> tuple[Array, ...]:
        column, _, length, distance, previous, reached = state
        onward = length + costs[column] - by_column[column] - by_row
        shorter = ~reached & (onward < distance)
        distance = jnp.where(shorter, onward, distance)
        previous = jnp.where(shorter, column, previous)
        row = jnp.argmin(jnp.where(reached, jnp.inf, distance)).astype(jnp.int32)
        possible = ~reached[row] & jnp.isfinite(distance[row])
        return (
            jnp.where(possible, owner[row], -1),
            jnp.where(possible, row, -1),
            jnp.where(possible, distance[row], length),
            distance,
            previous,
            reached.at[row].max(possible),
        )

    none = jnp.int32(-1)
    nowhere = jnp.full(rows, jnp.inf, costs.dtype), jnp.full(rows, none), jnp.zeros(rows, bool)
    start: tuple[Array, ...] = (column, none, jnp.zeros((), costs.dtype), *nowhere)
    _, free, length, distance, previous, reached = lax.while_loop(
        lambda state: state[0] >= 0, reach_another, start
    )
    return free, length, previous, jnp.where(reached, length - distance, 0)


def hungarian(cost: Float[Array, "n m"], valid: Bool[Array, " m"]) -> Int[Array, " m"]:
    """The assignment of a row of its own to each column that costs least in all.

    Equal in cost to `scipy.optimize.linear_sum_assignment`, up to rounding, and by the same method:
    shortest augmenting paths with potentials. Jonker and Volgenant, "A shortest augmenting path
    algorithm for dense and sparse linear assignment problems", 1987,
    https://doi.org/10.1007/BF02278710; Crouse, "On implementing 2D rectangular assignment
    algorithms", 2016, https://doi.org/10.1109/TAES.2016.140952. It batches by `jax.vmap`.

    Args:
      cost: of giving a row (a query) to a column (a box); infinite or NaN where that must not be.
      valid: which columns count.

    Returns:
      The row of each column; -1 for columns that do not count, and for those that no row is left
      for because of infinite costs.

    Raises:
      ValueError: there are more columns than rows.
    """
    rows, columns = cost.shape
    if columns > rows:
        raise ValueError(f"{columns} columns cannot have a row each of {rows}.")
    costs = jnp.where(jnp.isnan(cost), jnp.inf, lax.stop_gradient(cost)).T
    order = jnp.argsort(~valid).astype(jnp.int32)  # those that count come first
    number = valid.sum()

    def assign_another(state: tuple[Array, ...]) -> tuple[Array, ...]:
        index, assigned, owner, by_column, by_row = state
        target = jnp.where(index < number, order[index], -1)  # batched, one may be done before
        free, length, previous, gain = _path_to_free_row(costs, owner, by_column, by_row, target)
        # Potentials keep reduced costs at or above 0, and those of assigned pairs at 0.
        gain = jnp.where(free >= 0, gain, 0)
        by_row = by_row - gain
        by_column = by_column.at[jnp.where(owner >= 0, owner, columns)].add(gain, mode="drop")
        by_column = by_column.at[target].add(jnp.where(free >= 0, length, 0))

        def turn(state: tuple[Array, ...]) -> tuple[Array, ...]:
            """Gives a row on the path to the column before it, which leaves its own row free."""
            row, assigned, owner = state
            column = previous[row]
            left = jnp.where(column == target, -1, assigned[column])
            return left, assigned.at[column].set(row), owner.at[row].set(column)

        start: tuple[Array, ...] = (free, assigned, owner)
        _, assigned, owner = lax.while_loop(lambda state: state[0] >= 0, turn, start)
        return index + 1, assigned, owner, by_column, by_row

    nobody = jnp.int32(-1)
    start: tuple[Array, ...] = (
        jnp.int32(0),
        jnp.full(columns, nobody),
        jnp.full(rows, nobody),
        jnp.zeros(columns, cost.dtype),
        jnp.zeros(rows, cost.dtype),
    )
    return lax.while_loop(lambda state: state[0] < number, assign_another, start)[1]


def _draw(allowed: Array, number: Array, most: int, key: Array) -> Array:
    """A mask of `number` entries, at most `most`, drawn from those that are allowed."""
    most = min(most, len(allowed))
    lots = jnp.where(allowed, jax.random.uniform(key, allowed.shape), -1.0)
    _, drawn = lax.top_k(lots, most)
    return jnp.zeros(len(allowed), bool).at[drawn].set(jnp.arange(most) < number)


def balanced_sample(
    labels: Int[Array, " n"], key: PRNGKeyArray, count: int, positive_share: float
) -> tuple[Bool[Array, " n"], Bool[Array, " n"]]:
    """Draws positives up to a share, and fills up with negatives: what R-CNNs learn from.

    Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083, section 2.3; torchvision's
    `BalancedPositiveNegativeSampler`.

    Args:
      labels: 1 and above are positive, 0 is negative, below 0 is neither.
      key: of the draw.
      count: how many are drawn, if there are as many.
      positive_share: of positives among them at most.

    Returns:
      Two masks: the positives and the negatives that are drawn.
    """
    positive, negative = labels > 0, labels == 0
    of_positives, of_negatives = jax.random.split(key)
    most = int(count * positive_share)
    positives = jnp.minimum(positive.sum(), most)
    negatives = jnp.minimum(negative.sum(), count - positives)
    return (
        _draw(positive, positives, most, of_positives),
        _draw(negative, negatives, count, of_negatives),
    )
