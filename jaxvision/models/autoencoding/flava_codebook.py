"""DALL-E's encoder, which made BEiT's tokens: transformers' `FlavaImageCodebook`.

Ramesh et al., Zero-Shot Text-to-Image Generation, 2021, https://arxiv.org/abs/2102.12092; Singh et
al., FLAVA, 2021, https://arxiv.org/abs/2112.04482, publish its weights by these names. Of images of
112x112 pixels it makes 14x14 tokens, as many as a ViT has patches of 16 pixels at 224x224.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.layers.images import check_multiple
from jaxvision.losses.autoencoding import map_pixels
from jaxvision.models.autoencoding.dvae import Encoder
from jaxvision.models.variant import Variant


class FlavaImageCodebook(Encoder):
    """A tokenizer; called as the reference, with images as `map_pixels` makes them.

    Attributes: those of `Encoder`.
    """

    codes: int = 8192
    hidden: int = 256

    @property
    def stride(self) -> int:
        """Pixels, down and across, of one token."""
        return 2 ** (self.groups - 1)

    def tokens(self, image: Float[Array, "b h w c"]) -> Int[Array, "b i j"]:
        """The likeliest entry of each place, of images from 0 to 1."""
        check_multiple(image, self.stride, "DALL-E's encoder")
        return self(map_pixels(image)).argmax(-1).astype(jnp.int32)


VARIANTS = {
    "flava_image_codebook": Variant(
        FlavaImageCodebook,
        {},
        "transformers FlavaImageCodebook",
        (112, 112, 3),
        "Ramesh et al. 2021, https://arxiv.org/abs/2102.12092",
        first="blocks.input",
    )
}
