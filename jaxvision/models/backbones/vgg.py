"""VGG: Simonyan and Zisserman, Very Deep Convolutional Networks, 2015.

https://arxiv.org/abs/1409.1556. Reference: `torchvision.models.vgg16` ...; weights of timm's, whose
linear layers are convolutions, load too. `vgg11_lrn` and `vgg16c` are the paper's A-LRN and C,
which no package has; they have the names of `vgg11` and `vgg16`. The forms with batch
normalisation are torchvision's. Images of other sizes are averaged to 7x7 maps, as there.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head, flatten
from jaxvision.layers.images import check_size
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Variant
from jaxvision.ops.normalization import local_response_norm
from jaxvision.ops.pooling import adaptive_avg_pool2d, max_pool2d
from jaxvision.state_dict import StateDict


class VGG(nn.Module):
    """Five stages of convolutions, each max-pooled, and three linear layers.

    Attributes:
      stages: per stage one digit a convolution, the size of its kernel.
      batch_norm: whether each convolution is batch-normalised.
      response_norm: whether the first convolution is locally normalised, as in AlexNet.
      ceil_mode: whether the third pooling keeps a window that runs over the end, as SSD's does.
      hidden: channels of the two hidden linear layers.
      remat: recompute each stage in the backward pass to save memory.
      features_only: return the maps of strides 1, 2, 4, 8, 16 (each before its pooling) and 32.
    """

    num_classes: int = 1000
    stages: tuple[str, ...] = ("3", "3", "33", "33", "33")
    batch_norm: bool = False
    response_norm: bool = False
    ceil_mode: bool = False
    hidden: int = 4096
    dropout: float = 0.5
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.stages) + 1)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        check_size(image, 32, "VGG")
        x, features, index = image, [], 0
        for stage, kernels in enumerate(self.stages):

            def convolve(self: nn.Module, x: Array, index=index, stage=stage, kernels=kernels):
                for kernel in kernels:
                    x = Conv2d(
                        min(64 * 2**stage, 512),
                        int(kernel),
                        dtype=self.dtype,
                        name=f"features_{index}",
                    )(x)
                    if self.batch_norm:
                        norm = BatchNorm(dtype=self.dtype, name=f"features_{index + 1}")
                        x = norm(x, train)
                    x = nn.relu(x)
                    if self.response_norm and index == 0:
                        x = local_response_norm(x, 5, 1e-4, 0.75, 2.0, divide=False)
                    index += 3 if self.batch_norm else 2
                return x

            x = (nn.remat(convolve) if self.remat else convolve)(self, x)
            index += (3 if self.batch_norm else 2) * len(kernels) + 1
            features.append(x)
            x = max_pool2d(x, 2, ceil_mode=self.ceil_mode and stage == 2)
        if self.features_only:
            return (*features, x)
        x = flatten(adaptive_avg_pool2d(x, 7))
        for index in (0, 3):
            x = nn.relu(Dense(self.hidden, dtype=self.dtype, name=f"classifier_{index}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, dtype=self.dtype, name="classifier_6")(x)


def _from_timm(state: StateDict) -> StateDict:
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    names["head.fc"] = "classifier.6"
    renamed = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if module in names:
            name = f"{names[module]}.{leaf}"
            value = value.reshape(len(value), -1) if leaf == "weight" else value
        renamed[name] = value
    return renamed


_STAGES = {
    "vgg11": "3 3 33 33 33",
    "vgg13": "33 33 33 33 33",
    "vgg16": "33 33 333 333 333",
    "vgg19": "33 33 3333 3333 3333",
}


def _variant(kernels: str, reference: str, **options: bool) -> Variant:
    return Variant(
        VGG,
        {"stages": tuple(kernels.split()), **options},
        reference,
        paper="Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556",
        classifier=("classifier.6",),
        first="features.0",
        convert=_from_timm,
    )


VARIANTS = {
    **{n: _variant(kernels, f"torchvision {n}") for n, kernels in _STAGES.items()},
    **{
        f"{n}_bn": _variant(kernels, f"torchvision {n}_bn", batch_norm=True)
        for n, kernels in _STAGES.items()
    },
    "vgg11_lrn": _variant(_STAGES["vgg11"], "tests/parity/families/vgg.py", response_norm=True),
    "vgg16c": _variant("33 33 331 331 331", "tests/parity/families/vgg.py"),
}
