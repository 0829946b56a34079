"""Boxes (x0, y0, x1, y1): areas and overlaps."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def area(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Width times height; 0 where a box ends before it begins."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(boxes: Float[Array, "*b 4"], others: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Intersection over union, pair by pair; 0 where both boxes are empty."""
    corners = [
        jnp.maximum(boxes[..., :2], others[..., :2]),
        jnp.minimum(boxes[..., 2:], others[..., 2:]),
    ]
    shared = area(jnp.concatenate(corners, -1))
    union = area(boxes) + area(others) - shared
    return shared / jnp.where(union > 0, union, 1.0)
