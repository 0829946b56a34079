"""The largest eigenvalues of symmetric operators that are only known by their products.

Zhou, Saad, Tiago and Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered
subspace iteration", 2006, https://doi.org/10.1016/j.jcp.2006.03.017: a block of vectors is filtered
by a polynomial that is small on the unwanted end of the spectrum, made orthonormal and rotated.
Products are of whole blocks, so that the operator is read once for many vectors; and 32 bits
suffice, since orthogonality is made anew each time.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_DEGREE = 30
_MOST = 40  # filters applied
_LOWEST = -1.001  # below the spectrum
_EXACT = lax.Precision.HIGHEST


def leading(
    times: Callable[[Array], Array], start: Float[Array, "b n"], count: int, tol: float
) -> tuple[Float[Array, "count"], Float[Array, "count n"], Float[Array, "count"]]:
    """The `count` largest eigenvalues of a symmetric operator with spectrum in [-1, 1].

    Args:
      times: applies it to each of a block of vectors.
      start: a block of more than `count` vectors, the closer to the wanted ones the better.
      count: how many are wanted.
      tol: residual norm at which they are taken.

    Returns:
      (eigenvalues descending, unit vectors, residual norms, which exceed `tol` where 40 filters
      did not suffice).
    """

    def rotated(block: Array) -> tuple[Array, Array, Array]:
        """Orthonormal vectors, each as near to an eigenvector as the block allows."""
        basis = jnp.linalg.qr(block.T)[0].T
        image = times(basis)
        projected = jnp.matmul(basis, image.T, precision=_EXACT)
        values, turn = jnp.linalg.eigh((projected + projected.T) / 2)
        values, turn = values[::-1], turn[:, ::-1].T
        basis, image = (jnp.matmul(turn, x, precision=_EXACT) for x in (basis, image))
        return basis, values, jnp.linalg.norm(image - values[:, None] * basis, axis=-1)

    def filtered(block: Array, lowest_wanted: Array) -> Array:
        """Chebyshev's polynomial of the operator, at most 1 below `lowest_wanted`, 1 at 1."""
        upper = jnp.clip(lowest_wanted, _LOWEST + 0.1, 0.9999)
        middle, half = (upper + _LOWEST) / 2, (upper - _LOWEST) / 2
        first = half / (1 - middle)

        def next_degree(_, carry):
            before, last, scale = carry
            new = 1 / (2 / first - scale)
            image = (2 * new / half) * (times(last) - middle * last) - scale * new * before
            return last, image, new

        once = (first / half) * (times(block) - middle * block)
        return lax.fori_loop(1, _DEGREE, next_degree, (block, once, first))[1]

    def improve(carry):
        block, values, _, done = carry
        return *rotated(filtered(block, values[-1])), done + 1

    def unfinished(carry):
        *_, residuals, done = carry
        return (residuals[:count].max() > tol) & (done < _MOST)

    block, values, residuals, _ = lax.while_loop(unfinished, improve, (*rotated(start), 0))
    return values[:count], block[:count], residuals[:count]
