"""How a segmentation network looks at an image: whole, in windows, at several scales, flipped."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops.resize import resize
from jaxvision.ops.tiling import sliding_window


@dataclass(frozen=True)
class Views:
    """What evaluation and prediction average over.

    Attributes:
      scales: sizes relative to the image's own.
      flip: whether each view is seen mirrored too.
      window: (height, width) of sliding windows; empty is the whole image.
      overlap: of the windows, see `ops.tiling`.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, ...] = ()
    overlap: float = 0.5

    def covering(self, apply: Callable[[Array], Array], image: Float[Array, "..."]) -> "Views":
        """These views, in windows if the network gives back less than it sees (U-Net's valid form).

        Args:
          apply, image: see `logits`.
        """
        size = image.shape[1:-1]
        if self.window or jax.eval_shape(apply, image).shape[1:-1] == size:
            return self
        return replace(self, window=size, overlap=0.0)

    def logits(
        self, apply: Callable[[Array], Array], image: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Logits [b, h, w, k], or the logarithm of the mean probabilities of several views.

        Args:
          apply: the network, from normalised images to logits.
          image: [b, h, w, c], normalised. (Volumes [b, d, h, w, c] are seen at their own scale.)
        """
        look = apply
        if self.window:
            look = lambda x: sliding_window(apply, x, self.window, self.overlap)  # noqa: E731
        if self.scales == (1.0,) and not self.flip:
            return look(image)
        total = jnp.zeros(())
        for scale in self.scales:
            scaled = image
            if scale != 1.0:
                scaled = resize(image, [max(1, round(n * scale)) for n in image.shape[1:3]])
            views = [look(scaled)]
            if self.flip:
                views.append(look(scaled[..., ::-1, :])[..., ::-1, :])
            for found in views:
                if scale != 1.0:
                    found = resize(found, image.shape[1:3])
                total += jax.nn.softmax(found)
        return jnp.log(total / (len(self.scales) * (1 + self.flip)) + 1e-12)
