"""The largest eigenvalues of symmetric operators that are only known by their products.

Block Lanczos on a Chebyshev polynomial of the operator, after Zhou and Saad, "A Chebyshev-Davidson
Algorithm for Large Symmetric Eigenproblems", 2007, https://doi.org/10.1137/050630404: the
polynomial takes most of the spectrum out of the way before a vector costs a place in the basis. All
vectors are kept orthogonal and the operator itself is projected, so that 32 bits suffice.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

BLOCK = 2  # vectors added at a time: also how often an eigenvalue may occur
_LOWEST = -1.001  # below the spectrum
_MOST = 6  # bases built
_EXACT = lax.Precision.HIGHEST


def size_of_basis(count: int) -> int:
    """Vectors that `leading` keeps; the operator must have more dimensions."""
    return BLOCK * (28 + -(-count // BLOCK))


def leading(
    times: Callable[[Array], Array], start: Float[Array, "2 n"], count: int, degree: int, tol: float
) -> tuple[Float[Array, " count"], Float[Array, "count n"], Float[Array, " count"]]:
    """The `count` largest eigenvalues of a symmetric operator with spectrum in [-1, 1].

    Args:
      times: applies it to each of a block of vectors.
      start: vectors that no wanted eigenvector is orthogonal to: random, perhaps with a guess.
      count: how many are wanted.
      degree: of the polynomial; the closer the eigenvalues lie, the higher.
      tol: residual norm at which they are taken.

    Returns:
      (eigenvalues descending, unit vectors, residual norms, which exceed `tol` where 6 bases did
      not suffice).
    """
    size, kept = size_of_basis(count), BLOCK * (-(-count // BLOCK) + 1)
    upper = math.cos(math.pi / degree)  # above it the polynomial only grows
    middle, half = (upper + _LOWEST) / 2, (upper - _LOWEST) / 2

    def filtered(block: Array) -> Array:
        """Chebyshev's polynomial of the operator, which is at most 1 on what is unwanted."""

        def next_degree(done: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            before, last = carry
            image = (times(last) - middle * last) / half
            return last, jnp.where(done == 0, 1, 2) * image - before

        return lax.fori_loop(0, degree, next_degree, (jnp.zeros_like(block), block))[1]

    def orthonormal(block: Array, basis: Array) -> Array:
        """The block's part beyond the basis; twice, for the rounding of the first time."""
        for _ in range(2):
            inside = jnp.matmul(block, basis.T, precision=_EXACT)
            block = block - jnp.matmul(inside, basis, precision=_EXACT)
            block = jnp.linalg.qr(block.T)[0].T
        return block

    def extend(place: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, block = carry
        block = orthonormal(filtered(block), basis)
        return lax.dynamic_update_slice(basis, block, (place * BLOCK, 0)), block

    def build(carry):
        basis, _, _, block, done = carry
        first = jnp.where(done == 0, 0, kept // BLOCK)
        basis, _ = lax.fori_loop(first, size // BLOCK, extend, (basis, block))
        image = times(basis)
        projected = jnp.matmul(basis, image.T, precision=_EXACT)
        values, turn = jnp.linalg.eigh((projected + projected.T) / 2)
        values, turn = values[::-1][:kept], turn[:, ::-1][:, :kept].T
        vectors, image = (jnp.matmul(turn, x, precision=_EXACT) for x in (basis, image))
        wrong = image - values[:, None] * vectors
        residuals = jnp.linalg.norm(wrong, axis=-1)
        # What the basis lacks is in the residuals: on from those of the worst.
        worst = lax.top_k(residuals[:count], min(BLOCK, count))[1]
        block = jnp.resize(wrong[worst], start.shape)
        basis = jnp.zeros_like(basis).at[:kept].set(vectors)
        return basis, values, residuals, block, done + 1

    def unfinished(carry):
        *_, residuals, _, done = carry
        return (done < _MOST) & (residuals[:count].max() > tol)

    empty = jnp.zeros((size, start.shape[1]))
    begin = (empty, jnp.zeros(kept), jnp.full(kept, jnp.inf), start, 0)
    basis, values, residuals, _, _ = lax.while_loop(unfinished, build, begin)
    return values[:count], basis[:count], residuals[:count]
