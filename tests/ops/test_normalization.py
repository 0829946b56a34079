"""Local response normalisation against its definition and PyTorch's figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.ops.normalization import local_response_norm

ROW = np.array([3.0, -1, 0, 2, 5, -4, 1], np.float32)
# torch.nn.functional.local_response_norm(x, size, alpha=0.5, beta=0.75, k=2), PyTorch 2.13
PYTORCH = {
    5: [1.316074, -0.399384, 0.0, 0.485704, 1.214261, -0.971409, 0.254511],
    4: [1.239392, -0.413131, 0.0, 0.538616, 1.089658, -0.86116, 0.226332],
}


def by_definition(x, size, alpha, beta, k):
    channels = x.shape[-1]
    total = np.stack(
        [
            np.square(x[..., max(0, c - size // 2) : c + (size - 1) // 2 + 1]).sum(-1)
            for c in range(channels)
        ],
        -1,
    )
    return x / (k + alpha * total) ** beta


@pytest.mark.parametrize("size", PYTORCH)
def test_matches_pytorch(size):
    ours = local_response_norm(jnp.asarray(ROW)[None], size, 0.5, 0.75, 2.0)
    np.testing.assert_allclose(ours[0], PYTORCH[size], 1e-5, 1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_undivided_is_the_papers_formula_and_the_gradient_is_its_own(size, beta):
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype(np.float32) * 3
    ours = local_response_norm(jnp.asarray(x), size, 0.1, beta, 2.0, divide=False)
    np.testing.assert_allclose(ours, by_definition(x, size, 0.1, beta, 2.0), 1e-5)
    divided = local_response_norm(jnp.asarray(x), size, 0.1 * size, beta, 2.0)
    np.testing.assert_allclose(ours, divided, 1e-5)

    def loss(x):
        return jnp.sum(jnp.sin(local_response_norm(x, size, 0.1, beta, 2.0, divide=False)))

    gradient, step = jax.grad(loss)(jnp.asarray(x)), 1e-4
    exact = x.astype(np.float64)
    for index in [(0, 0, 0), (1, 2, 3), (0, 1, 5)]:
        moved = []
        for sign in (1, -1):
            there = exact.copy()
            there[index] += sign * step
            moved.append(np.sin(by_definition(there, size, 0.1, beta, 2.0)).sum())
        np.testing.assert_allclose(gradient[index], (moved[0] - moved[1]) / 2 / step, 1e-3, 1e-4)


def test_bfloat16_sums_in_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 8)), jnp.bfloat16)
    y = local_response_norm(x)
    assert y.dtype == jnp.bfloat16
    exact = local_response_norm(x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), exact, 1e-2)
    assert jax.grad(lambda x: local_response_norm(x).sum())(x).dtype == jnp.bfloat16
