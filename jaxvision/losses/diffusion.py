"""What a diffusion network learns by, and the bound on the likelihood that it gives."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.ops.diffusion import Schedule, target


def min_snr_weight(
    prediction: str, alpha_bar: Float[Array, " b"], gamma: float
) -> Float[Array, " b"]:
    """Weights by which each timestep counts as `min(snr, gamma)` squared errors of x0.

    Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, 2023,
    https://arxiv.org/abs/2303.09556; there gamma is 5.

    Args:
      prediction: what the squared errors are of: "epsilon", "x0" or "v".
      alpha_bar: what is left of each image's variance.
      gamma: see above.
    """
    snr = alpha_bar / (1 - alpha_bar)
    capped = jnp.minimum(snr, gamma)
    return {"epsilon": capped / snr, "x0": capped, "v": capped / (snr + 1)}[prediction]


def denoising_loss(
    prediction: str,
    output: Float[Array, "b h w c"],
    x0: Float[Array, "b h w c"],
    noise: Float[Array, "b h w c"],
    alpha_bar: Float[Array, " b"],
    min_snr: float = 0.0,
) -> Float[Array, " b"]:
    """The mean squared error of what a network says of each image (Ho et al. 2020, eq. 14).

    Args:
      prediction: what that is; see `ops.diffusion.PREDICTIONS`.
      output: of the network.
      x0: images in -1..1.
      noise: that was added.
      alpha_bar: what is left of each image's variance.
      min_snr: gamma of `min_snr_weight`; 0 weights all timesteps alike.

    Raises:
      UserError: no such prediction.
    """
    wanted = target(prediction, x0, noise, alpha_bar)
    error = jnp.square(output.astype(jnp.float32) - wanted).mean((1, 2, 3))
    return error * min_snr_weight(prediction, alpha_bar, min_snr) if min_snr else error


# -- the variational bound -------------------------------------------------------------------------
#
# -log p(x0) is at most the sum of three parts (Ho et al. 2020, eq. 5): of x_T, which is nearly
# N(0, 1); of each step back from t to t - 1, whose two Gaussians have the posterior's variance; of
# the last step, which ends at one of 256 values. The middle part is estimated at one t an image,
# drawn evenly in log snr: there the parts of all t are about alike (Kingma et al. 2021,
# https://arxiv.org/abs/2107.00630), so that few draws tell it well.


def bound_timesteps(
    schedule: Schedule, places: Float[Array, " b"]
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Timesteps from 1 on, evenly in log snr, and the probability of each.

    Args:
      schedule: of the training.
      places: in 0..1; uniform ones draw timesteps at random.
    """
    shares = -np.diff(np.log(schedule.snr))
    shares /= shares.sum()
    found = jnp.searchsorted(jnp.asarray(np.cumsum(shares), jnp.float32), places, side="right")
    found = jnp.minimum(found, len(shares) - 1)
    return (found + 1).astype(jnp.int32), jnp.asarray(shares, jnp.float32)[found]


def step_divergence(
    schedule: Schedule,
    timestep: Int[Array, " b"],
    x0: Float[Array, "b h w c"],
    found: Float[Array, "b h w c"],
) -> Float[Array, " b"]:
    """The divergence in nats of a step back that takes `found` for x0; timesteps are 1 or more."""
    snr = schedule.snr
    gained = jnp.asarray(np.append(0.0, -np.diff(snr)), jnp.float32)[timestep]
    return gained / 2 * jnp.square(x0 - found).sum((1, 2, 3))


def prior_divergence(schedule: Schedule, x0: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """The divergence in nats of what is left of each image at the end from N(0, 1)."""
    kept = float(schedule.alpha_bars[-1])
    return (kept * jnp.square(x0) - kept - np.log1p(-kept)).sum((1, 2, 3)) / 2


def decoder_loss(
    schedule: Schedule, x0: Float[Array, "b h w c"], found: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """-log p(x0) in nats of images of 256 values, about `found`, which the last step sees.

    A value has the probability of a Gaussian between its neighbours' middles, the outermost ones
    all that is beyond; the variance is that of the posterior at t = 1 (Ho et al. 2020, 3.3).
    """
    kept, beta = schedule.alpha_bars.astype(np.float64), float(schedule.betas[1])
    inverse = float(((1 - kept[0]) / (1 - kept[1]) * beta) ** -0.5)
    below, above = (inverse * (x0 - found + side / 255) for side in (-1, 1))
    # Of two tails the smaller one is exact.
    swap = below + above > 0
    below, above = jnp.where(swap, -above, below), jnp.where(swap, -below, above)
    darkest, brightest = x0 < -0.999, x0 > 0.999
    below = jnp.where(jnp.where(swap, brightest, darkest), -jnp.inf, below)
    above = jnp.where(jnp.where(swap, darkest, brightest), jnp.inf, above)
    log_above, log_below = jax.scipy.special.log_ndtr(above), jax.scipy.special.log_ndtr(below)
    # log(e^above - e^below)
    log_p = log_above + jnp.log(-jnp.expm1(jnp.minimum(log_below - log_above, -1e-7)))
    return -log_p.sum((1, 2, 3))
