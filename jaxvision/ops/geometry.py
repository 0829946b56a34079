"""Affine geometry of batched images, masks, points and boxes.

One convention throughout: coordinates are (x, y) in pixels, y pointing down, and pixel i covers
the interval [i, i + 1), so its centre is at i + 0.5 and an image of width w spans 0 to w. A matrix
[3, 3] is homogeneous and maps input coordinates to output coordinates: `second @ first` applies
`first` first. Coordinates are worked out by elementwise products, never by a matrix product,
because accelerators round the operands of those to bfloat16 or TF32 by default.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped


def affine_matrix(
    centre: tuple[float, float],
    *,
    degrees: Float[Array, "*#b"] | float = 0.0,
    scale: Float[Array, "*#b"] | float = 1.0,
    translation: tuple[Float[Array, "*#b"] | float, Float[Array, "*#b"] | float] = (0.0, 0.0),
    shear: tuple[Float[Array, "*#b"] | float, Float[Array, "*#b"] | float] = (0.0, 0.0),
) -> Float[Array, "... 3 3"]:
    """Shears, scales and rotates about `centre`, then translates.

    Args:
      centre: the fixed point (x, y), in pixels.
      degrees: rotation, clockwise as seen.
      scale: 2 makes everything twice as large.
      translation: (x, y) in pixels.
      shear: (x, y) in degrees: x moves a point at distance d below the centre left by d tan(x),
        y then moves one at distance d to the right up by d tan(y). Same order and signs as
        `torchvision.transforms.functional.affine`.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    tan_x, tan_y = (jnp.tan(jnp.deg2rad(jnp.asarray(part, jnp.float32))) for part in shear)
    cos, sin = scale * jnp.cos(angle), scale * jnp.sin(angle)
    # rotation @ [[1, 0], [-tan_y, 1]] @ [[1, -tan_x], [0, 1]]
    a, b = cos + sin * tan_y, -cos * tan_x - sin * (1 + tan_x * tan_y)
    c, d = sin - cos * tan_y, -sin * tan_x + cos * (1 + tan_x * tan_y)
    x, y = centre
    return _homogeneous(
        a, b, x + translation[0] - (a * x + b * y), c, d, y + translation[1] - (c * x + d * y)
    )


def invert_affine(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b 3 3"]:
    """The inverse, in closed form; the matrix must not be singular."""
    (a, b, x), (c, d, y) = (jnp.moveaxis(matrix[..., row, :], -1, 0) for row in (0, 1))
    determinant = a * d - b * c
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return _homogeneous(a, b, -(a * x + b * y), c, d, -(c * x + d * y))


def area_scale(matrix: Float[Array, "*b 3 3"]) -> Float[Array, "*b"]:
    """By what the map multiplies areas: the size of its determinant."""
    a, b, c, d = (matrix[..., row, column] for row in (0, 1) for column in (0, 1))
    return jnp.abs(a * d - b * c)


def _homogeneous(*elements) -> Float[Array, "... 3 3"]:
    rows = jnp.broadcast_arrays(*(jnp.asarray(element, jnp.float32) for element in elements))
    zero, one = jnp.zeros_like(rows[0]), jnp.ones_like(rows[0])
    flat = jnp.stack([*rows, zero, zero, one], axis=-1)
    return flat.reshape(*flat.shape[:-1], 3, 3)


def _transform(matrix: Float[Array, "b 3 3"], x: Array, y: Array) -> tuple[Array, Array]:
    """`x` and `y` have a leading batch axis, or one of length 1, and any further axes."""
    m = matrix.reshape(-1, 9, *(1,) * (x.ndim - 1))
    return m[:, 0] * x + m[:, 1] * y + m[:, 2], m[:, 3] * x + m[:, 4] * y + m[:, 5]


def _source(matrix: Float[Array, "b 3 3"], height: int, width: int) -> tuple[Array, Array]:
    """Where each output pixel's centre comes from: (x, y), each [b, h, w]."""
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] + 0.5
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] + 0.5
    x, y = jnp.broadcast_arrays(x, y)
    return _transform(invert_affine(matrix), x, y)


def _take(
    image: Shaped[Array, "b axis *axes"],
    x: Int[Array, "b h w"],
    y: Int[Array, "b h w"],
    fill,
    *part: Int[Array, "b h w"],
):
    """Pixels of [b, h, w, *c] by whole coordinates; `fill` outside.

    With `part` of [b, p, h, w, *c], of the image of that number.
    """
    height, width = image.shape[1 + len(part) : 3 + len(part)]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    pixels = jax.vmap(lambda one, *place: one[place])(image, *part, rows, columns)
    inside = inside.reshape(*inside.shape, *(1,) * (pixels.ndim - 3))
    return jnp.where(inside, pixels, jnp.asarray(fill, image.dtype))


def _interpolated(take, x: Float[Array, "b h w"], y: Float[Array, "b h w"]) -> Array:
    """Bilinear between the pixels that `take` gives by whole coordinates."""
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    u, v = (x - left)[..., None], (y - top)[..., None]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    upper = (1 - u) * take(left, top) + u * take(left + 1, top)
    lower = (1 - u) * take(left, top + 1) + u * take(left + 1, top + 1)
    return (1 - v) * upper + v * lower


def warp_images(
    images: Float[Array, "b h w c"], matrix: Float[Array, "b 3 3"], fill: float = 0.0
) -> Float[Array, "b h w c"]:
    """Warps by bilinear interpolation; what lies outside the input has the value `fill`.

    Equals `scipy.ndimage.affine_transform(order=1, mode="grid-constant", cval=fill)`. The identity
    matrix returns the images bit for bit.
    """
    x, y = _source(matrix, *images.shape[1:3])
    return _interpolated(lambda x, y: _take(images, x, y, fill), x, y).astype(images.dtype)


def warp_parts(
    images: Float[Array, "b p h w c"],
    matrix: Float[Array, "b p 3 3"],
    part: Int[Array, "b h w"],
    fill: float = 0.0,
) -> Float[Array, "b h w c"]:
    """As `warp_images`, each pixel of the output from one of several images.

    Args:
      images: p of them for each output.
      matrix: of each.
      part: which image each pixel of the output is of.
      fill: of pixels from outside of their image.
    """
    places = [_source(matrix[:, p], *images.shape[2:4]) for p in range(images.shape[1])]
    x, y = (
        jnp.take_along_axis(jnp.stack(axis, -1), part[..., None], -1)[..., 0]
        for axis in zip(*places)
    )
    return _interpolated(lambda x, y: _take(images, x, y, fill, part), x, y).astype(images.dtype)


def warp_masks(
    masks: Shaped[Array, "b h w *c"], matrix: Float[Array, "b 3 3"], fill: int = 255
) -> Shaped[Array, "b h w *c"]:
    """Warps by nearest neighbour, with the geometry of `warp_images`; `fill` outside the input."""
    x, y = _source(matrix, *masks.shape[1:3])
    return _take(masks, jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32), fill)


def warp_points(
    points: Float[Array, "b n 2"], matrix: Float[Array, "b 3 3"]
) -> Float[Array, "b n 2"]:
    """Points (x, y) in pixels, moved as `warp_images` moves what is drawn there."""
    return jnp.stack(_transform(matrix, points[..., 0], points[..., 1]), axis=-1)


def warp_boxes(
    boxes: Float[Array, "b n 4"], matrix: Float[Array, "b 3 3"]
) -> Float[Array, "b n 4"]:
    """The axis-aligned hull of each moved box (x0, y0, x1, y1); not clipped to the image."""
    x, y = _transform(
        matrix, boxes[..., jnp.array([0, 2, 2, 0])], boxes[..., jnp.array([1, 1, 3, 3])]
    )
    return jnp.stack([x.min(-1), y.min(-1), x.max(-1), y.max(-1)], axis=-1)


def flip_boxes(
    boxes: Float[Array, "b n 4"], *, width: int | None = None, height: int | None = None
) -> Float[Array, "b n 4"]:
    """Mirrors boxes left to right in an image of `width`, or top to bottom in one of `height`."""
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    if width is not None:
        x0, x1 = width - x1, width - x0
    if height is not None:
        y0, y1 = height - y1, height - y0
    return jnp.stack([x0, y0, x1, y1], axis=-1)


def clip_boxes(boxes: Float[Array, "b n 4"], height: int, width: int) -> Float[Array, "b n 4"]:
    """Boxes cut off at the image's border; one outside it has no area left."""
    return jnp.clip(boxes, 0.0, jnp.array([width, height, width, height], boxes.dtype))
