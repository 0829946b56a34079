"""Bags of visual words: dense SIFT, a vocabulary, spatial pyramids of histograms.

Csurka et al., "Visual Categorization with Bags of Keypoints", 2004,
https://people.eecs.berkeley.edu/~efros/courses/AP06/Papers/csurka-eccv-04.pdf; Lazebnik, Schmid and
Ponce, "Beyond Bags of Features: Spatial Pyramid Matching", 2006,
https://doi.org/10.1109/CVPR.2006.68. SIFT: Lowe 2004,
https://doi.org/10.1023/B:VISI.0000029664.99615.94, of OpenCV. Vocabularies are made by
`jaxvision.classical.kmeans`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from jaxvision.classical.kmeans import assign
from jaxvision.classical.neighbours import pairwise_l1
from jaxvision.errors import UserError, unknown

NORMS = ("none", "l1", "l2", "power")
_SIFT_REACH = 6.0  # OpenCV: 4 x 4 histograms, each 3 * size / 2 wide
_ROWS = 256  # of a kernel matrix at a time


def grid(size: tuple[int, int], step: int, patch: int) -> Float[np.ndarray, "p 2"]:
    """Centres (row, column) of patches `step` apart, centred in an image of `size` (rows, columns).

    Raises:
      UserError: the image is smaller than a patch.
    """
    if min(size) < patch or min(step, patch) < 1:
        raise UserError(
            f"Patches of {patch} pixels, {step} apart, do not fit images of {size[1]}x{size[0]}; "
            f"a patch has 1 to {min(size)} pixels."
        )
    axes = []
    for length in size:
        count = (length - patch) // step + 1
        before = (length - patch - (count - 1) * step) / 2
        axes.append(before + (patch - 1) / 2 + step * np.arange(count))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


def dense_sift(
    images: UInt8[np.ndarray, "b h w c"], places: Float[np.ndarray, "p 2"], patch: int
) -> UInt8[np.ndarray, "b p 128"]:
    """Upright SIFT descriptors of patches, computed by OpenCV on the host.

    Args:
      images: grey or colour; colour is made grey.
      places: centres (row, column), as `grid` gives them.
      patch: side of the patches in pixels.
    """
    points = [cv2.KeyPoint(float(x), float(y), patch / _SIFT_REACH, 0) for y, x in places]

    def describe(image: np.ndarray) -> np.ndarray:
        grey = image[..., 0] if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        found, descriptors = cv2.SIFT.create().compute(np.ascontiguousarray(grey), points)
        if len(found) != len(points):
            raise UserError(f"OpenCV described {len(found)} of {len(points)} patches.")
        return descriptors.astype(np.uint8)  # whole numbers up to 255 already

    with ThreadPoolExecutor() as pool:
        described = list(pool.map(describe, images))
    return np.stack(described) if described else np.zeros((0, len(points), 128), np.uint8)


def pyramid_cells(
    places: Float[np.ndarray, "p 2"], size: tuple[int, int], levels: int
) -> Float[np.ndarray, "p cells"]:
    """The cells of a spatial pyramid that each place is in, times the level's weight.

    Level l = 0 ... levels - 1 has 2^l x 2^l cells. With L = levels - 1 its weight is 1 / 2^(L-l+1),
    that of level 0 is 1 / 2^L, as in Lazebnik et al., equation 3.

    Raises:
      UserError: no level.
    """
    if levels < 1:
        raise UserError(f"levels={levels}; a pyramid has at least 1.")
    top = levels - 1
    columns = []
    for level in range(levels):
        cells = np.floor(places * 2**level / np.asarray(size)).astype(int).clip(0, 2**level - 1)
        weight = 2.0 ** -(top if level == 0 else top - level + 1)
        columns.append(np.eye(4**level)[cells[:, 0] * 2**level + cells[:, 1]] * weight)
    return np.concatenate(columns, 1).astype(np.float32)


@partial(jax.jit, static_argnames=("num_words", "norm"))
def pyramid_histogram(
    words: Int[Array, "b p"],
    cells: Float[Array | np.ndarray, "p cells"],
    num_words: int,
    norm: str = "l1",
) -> Float[Array, "b f"]:
    """Weighted histograms of the words in every cell, one after another: f = cells * words.

    Args:
      words: of each patch, 0 to `num_words` - 1.
      cells: `pyramid_cells`; a column of ones for a bag without places.
      norm: `l1`, `l2`, or `power`: square roots, then l2 (Perronnin et al. 2010,
        https://doi.org/10.1007/978-3-642-15561-1_11).

    Raises:
      UserError: unknown norm.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    counts = jnp.einsum("bpw,pc->bcw", jax.nn.one_hot(words, num_words), cells)
    counts = counts.reshape(len(words), -1)
    if norm == "none":
        return counts
    if norm == "power":
        counts = jnp.sqrt(counts)
    order = 1 if norm == "l1" else 2
    length = jnp.linalg.norm(counts, ord=order, axis=-1, keepdims=True)
    return counts / jnp.where(length == 0, 1, length)


@jax.jit
def histogram_intersection(
    a: Float[Array | np.ndarray, "n f"], b: Float[Array | np.ndarray, "m f"]
) -> Float[Array, "n m"]:
    """The kernel sum over min(a, b) of histograms, which are not negative.

    Swain and Ballard, "Color Indexing", 1991, https://doi.org/10.1007/BF00130487. Of pyramids with
    their weights it is the pyramid match kernel of Lazebnik et al.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    rows = min(_ROWS, len(a))
    missing = -len(a) % max(rows, 1)
    blocks = jnp.pad(a, ((0, missing), (0, 0))).reshape(-1, rows, a.shape[1])
    mass = b.sum(-1)

    def of_block(block: Array) -> Array:
        return (block.sum(-1)[:, None] + mass - pairwise_l1(block, b.T)) / 2

    return lax.map(of_block, blocks).reshape(-1, len(b))[: len(a)]


def kernel_features(
    of_landmarks: Float[Array | np.ndarray, "m m"], kernel: Float[Array | np.ndarray, "n m"]
) -> Float[np.ndarray, "n r"]:
    """Features whose inner products are the kernel's: exact between landmarks, else projected.

    With them a linear classifier is the kernel's; with all training samples as landmarks exactly.
    Williams and Seeger, "Using the Nystroem Method to Speed Up Kernel Machines", 2000.

    Args:
      of_landmarks: the kernel among the landmarks, positive semi-definite.
      kernel: between the samples and the landmarks.
    """
    values, vectors = np.linalg.eigh(np.asarray(of_landmarks, np.float64))
    kept = values > values.max(initial=0) * 1e-6
    return np.asarray(kernel) @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)


def words_of(
    descriptors: UInt8[np.ndarray, "b p 128"], vocabulary: Float[Array | np.ndarray, "k 128"]
) -> Int[Array, "b p"]:
    """The nearest word of each descriptor."""
    flat = descriptors.reshape(-1, descriptors.shape[-1])
    return assign(flat, vocabulary).reshape(descriptors.shape[:2])


def sample_descriptors(
    descriptors: UInt8[np.ndarray, "b p 128"] | Sequence[np.ndarray], count: int, seed: int = 0
) -> Float[np.ndarray, "n 128"]:
    """`count` descriptors drawn without replacement (all, if there are fewer), as float32."""
    flat = np.concatenate([np.reshape(d, (-1, np.shape(d)[-1])) for d in descriptors])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(flat), min(count, len(flat)), replace=False)
    return flat[chosen].astype(np.float32)
