"""Classification and localisation: one class and one box an image, by two heads on one backbone.

The form of Sermanet et al., OverFeat, 2013, https://arxiv.org/abs/1312.6229, section 4, and of the
lectures: a classifier, and beside it a regressor of the box on the same last map. The class comes
from the map's mean, as in a ResNet; the box comes through a hidden layer from the flattened map,
which says where things are. Reference: `Localizer` of tests/parity/networks/localizer.py.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.head import Head
from jaxvision.layers.linear import Dense
from jaxvision.models.variant import Variant


class Localizer(nn.Module):
    """Returns `logits` [b, k] and `box` [b, 4], (x0, y0, x1, y1) in parts of the image's sides.

    The flattened map ties a trained network to the size of its images.

    Attributes:
      encoder: the backbone, which gives feature maps.
      hidden: channels of the hidden layer.
    """

    ENDS = ("classes",)

    encoder: nn.Module
    num_classes: int = 1000
    hidden: int = 256
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> dict[str, Float[Array, "b d"]]:
        x = self.encoder(image, train)[-1]
        logits = Head(self.num_classes, dtype=self.dtype, name="class_head")(x.mean((1, 2)))
        hidden = Dense(self.hidden, dtype=self.dtype, name="box_head_0")(x.reshape(x.shape[0], -1))
        box = Dense(4, dtype=self.dtype, name="box_head_2")(nn.relu(hidden))
        return {"logits": logits, "box": box}


VARIANTS = {
    "localizer_resnet20_cifar": Variant(
        Localizer,
        {"encoder": "resnet20_cifar"},
        "tests/parity/networks/localizer.py Localizer(ResNet-20)",
        (32, 32, 3),
        "Sermanet et al. 2013, https://arxiv.org/abs/1312.6229",
        classifier=("class_head",),
        first="encoder.conv1",
    )
}
