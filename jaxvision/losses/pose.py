"""The loss of heat maps of key points."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.losses.objective import Ratio, masked_ratio


def heatmap_loss(
    heatmaps: Float[Array, "b h w k"],
    targets: Float[Array, "b h w k"],
    labelled: Bool[Array, "b k"],
) -> Ratio:
    """The mean squared error over the pixels of the maps whose key point is labelled.

    Newell et al., Stacked Hourglass Networks, 2016, https://arxiv.org/abs/1603.06937, section 3.2.
    Key points without a label are neither there nor elsewhere, so their maps do not count; of
    images without labels nothing does.

    Args:
      heatmaps: of the network; computed in float32.
      targets: see `ops.heatmaps.gaussians`.
      labelled: which key points of each image are labelled.
    """
    errors = jnp.square(heatmaps.astype(jnp.float32) - targets).mean((1, 2))
    return masked_ratio(errors, jnp.ones_like(errors), labelled)
