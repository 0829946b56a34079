"""How alike two images are, pixel by pixel and by their structure; both on the device."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxvision.errors import UserError


def psnr(
    a: Float[Array, "b h w c"], b: Float[Array, "b h w c"], span: float = 1.0
) -> Float[Array, " b"]:
    """The peak signal-to-noise ratio in dB: 10 log10(span^2 / mean squared error).

    Of equal images it is infinite.

    Args:
      a, b: images.
      span: between the smallest and the largest value that there may be.
    """
    error = jnp.mean(jnp.square(a - b), axis=(1, 2, 3))
    return 10 * (2 * jnp.log10(span) - jnp.log10(error))


def ssim(
    a: Float[Array, "b h w c"],
    b: Float[Array, "b h w c"],
    span: float = 1.0,
    window: int = 7,
    gaussian: float | None = None,
) -> Float[Array, " b"]:
    """The structural similarity, a mean over windows that are whole, and over channels.

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004,
    https://doi.org/10.1109/TIP.2003.819861. The paper's windows are Gaussians of `window=11,
    gaussian=1.5`; the defaults are scikit-image's, uniform ones with unbiased variances. Of both
    the values are those of scikit-image.

    Args:
      a, b: images.
      span: between the smallest and the largest value that there may be.
      window: side of the windows in pixels, odd.
      gaussian: standard deviation of Gaussian windows in pixels; None weighs all pixels alike.

    Raises:
      UserError: the images are smaller than a window, or its side is even.
    """
    if window % 2 == 0 or min(a.shape[1:3]) < window:
        raise UserError(
            f"SSIM takes windows of odd side that fit into images of {a.shape[1]}x{a.shape[2]} "
            f"pixels; got window={window}."
        )
    offsets = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (offsets / gaussian) ** 2) if gaussian else np.ones(window)
    weights = weights / weights.sum()
    unbiased = 1.0 if gaussian else window**2 / (window**2 - 1)

    def mean(x: Array) -> Array:
        return _along(_along(x, weights, 1), weights, 2)

    # Values around 0: of squares of large values little is left in float32.
    middle = (jnp.mean(a, axis=(1, 2), keepdims=True) + jnp.mean(b, axis=(1, 2), keepdims=True)) / 2
    p, q = a - middle, b - middle
    mean_p, mean_q = mean(p), mean(q)
    of_a, of_b = mean_p + middle, mean_q + middle
    variances = unbiased * (mean(p * p) - mean_p**2 + mean(q * q) - mean_q**2)
    covariance = unbiased * (mean(p * q) - mean_p * mean_q)
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    likeness = (2 * of_a * of_b + c1) / (of_a**2 + of_b**2 + c1)
    return jnp.mean(likeness * (2 * covariance + c2) / (variances + c2), axis=(1, 2, 3))


def _along(x: Array, weights: np.ndarray, axis: int) -> Array:
    """Weighted sums of neighbours along an axis, of windows that are whole."""
    count = x.shape[axis] - len(weights) + 1
    starts = range(len(weights))
    cuts = jnp.stack([jax.lax.slice_in_dim(x, i, i + count, axis=axis) for i in starts])
    return jnp.tensordot(jnp.asarray(weights, x.dtype), cuts, 1)
