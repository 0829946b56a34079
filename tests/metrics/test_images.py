"""PSNR and SSIM against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxvision.errors import UserError
from jaxvision.metrics import images


def pair(span=1.0):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(size=(2, 24, 31, 3)), 1), 2)
    a = (smooth - smooth.min()) / np.ptp(smooth) * span
    b = np.clip(a + rng.normal(0, 0.05 * span, a.shape), 0, span)
    return jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)


@pytest.mark.parametrize("span", [1.0, 255.0])
def test_psnr_is_that_of_scikit_image(span):
    a, b = pair(span)
    expected = [
        peak_signal_noise_ratio(x, y, data_range=span) for x, y in zip(*map(np.asarray, (a, b)))
    ]
    np.testing.assert_allclose(jax.jit(images.psnr, static_argnums=2)(a, b, span), expected, 1e-5)
    assert np.isinf(images.psnr(a, a)).all()


@pytest.mark.parametrize("span", [1.0, 255.0])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        (
            {"window": 11, "gaussian": 1.5},
            {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        ),
    ],
    ids=["uniform", "gaussian"],
)
def test_ssim_is_that_of_scikit_image(span, ours, theirs):
    a, b = pair(span)
    expected = [
        structural_similarity(x, y, data_range=span, channel_axis=2, **theirs)
        for x, y in zip(*(np.asarray(x, np.float64) for x in (a, b)))
    ]
    found = jax.jit(lambda a, b: images.ssim(a, b, span, **ours))(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(images.ssim(a, a, span, **ours), 1, rtol=1e-6)


def test_windows_must_fit():
    a, _ = pair()
    with pytest.raises(UserError, match="of 24x31 pixels; got window=25"):
        images.ssim(a, a, window=25)
    with pytest.raises(UserError, match="odd side"):
        images.ssim(a, a, window=6)
