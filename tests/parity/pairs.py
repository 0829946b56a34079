"""Decoders on encoders for which other libraries publish weights, against those libraries.

    python tests/parity/pairs.py [NAME ...]

prints each pair's deviation, relative to the largest logit, by the image's size. `test_pairs.py`
holds them. The weights are decided by the reference's names and go through what loads published
files, so a pair whose names do not fit is refused here as it is there.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.case import Case
from parity.deterministic import image, weights

from jaxvision import models, pretrained

CLASSES = 5
Size = tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A decoder on an encoder.

    Attributes:
      build: makes the reference, a `torch.nn.Module` that returns logits.
      network: ours, of the registry.
      options: for `models.create`.
      sizes: of the images; odd sides where the reference takes such.
      refused: what the message says where our network does not take the weights.
      loaded_at: the size that the weights are loaded at, if it is not the image's.
    """

    build: Callable[[], Any]
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ((64, 96), (75, 101))
    refused: str = ""
    loaded_at: Size | None = None


_SHALLOW = {"depths": (1, 1, 1, 1)}
_LAST = {"last_conv": True}
# By segmentation_models_pytorch's name: ours, and options. Deep ones are cut short.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    **{n: (n, _SHALLOW) for n in ("resnet18", "resnet50", "resnext50_32x4d")},
    "se_resnet50": ("legacy_seresnet50", _SHALLOW),
    "senet154": ("legacy_senet154", _SHALLOW),
    "densenet121": ("densenet121", {"depths": (2, 2, 2, 2)}),
    "xception": ("legacy_xception", {}),
    "mobilenet_v2": ("mobilenet_v2", _LAST),
    **{n: (n, {}) for n in ("vgg11", "vgg13_bn", "inceptionv4", "inceptionresnetv2")},
    "inceptionv4": ("inception_v4", {}),
    "inceptionresnetv2": ("inception_resnet_v2", {}),
}
_DILATED = ("resnet18", "resnet50", "resnext50_32x4d", "se_resnet50", "senet154", "mobilenet_v2")


def smp(decoder: str, encoder: str, **options: Any) -> Any:
    """A network of segmentation_models_pytorch, on images of any size that its layers take."""
    from parity.references import first_blocks, segmentation_models

    package = segmentation_models()
    table = package.encoders.encoders[encoder]["params"]
    if encoder == "densenet121":
        table |= {"block_config": (2, 2, 2, 2), "out_channels": [3, 64, 128, 128, 128, 128]}
    network = getattr(package, decoder)(encoder, encoder_weights=None, classes=CLASSES, **options)
    network.requires_divisible_input_shape = False
    if ENCODERS[encoder][1] == _SHALLOW:
        first_blocks(network.encoder)
    return network


def _unet(theirs: str, refused: str = "", center: bool | None = None, **changed: Any) -> Pair:
    ours, options = ENCODERS[theirs]
    center = theirs.startswith("vgg") if center is None else center
    return Pair(
        lambda: smp("Unet", theirs),
        "unet_resnet18",
        {"encoder": ours, "encoder_options": changed or options, "center": center},
        sizes=((96, 128), (99, 133)),
        refused=refused,
    )


def _deeplab(theirs: str, output_stride: int, refused: str = "", **changed: Any) -> Pair:
    ours, options = ENCODERS[theirs]
    stride = {} if output_stride == 16 else {"output_stride": output_stride}
    return Pair(
        lambda: smp("DeepLabV3Plus", theirs, encoder_output_stride=output_stride),
        "deeplabv3plus_resnet18",
        {"encoder": ours, "encoder_options": {**(changed or options), **stride}},
        sizes=((64, 96),),
        refused=refused,
    )


_SWIN = {"depths": (2, 2, 2, 2), "width": 12, "num_heads": (1, 1, 2, 2), "window": 7}
_BEIT = {"depth": 5, "width": 24, "num_heads": 2, "out_blocks": (0, 1, 2, 3)}
_NARROW = {"width": 16, "auxiliary_width": 8}


def _upernet(name: str, side: int, **options: Any) -> Pair:
    """transformers' UPerNet for images of a square of this side."""
    from parity.families.upernet import build

    case = Case((1, 3, side, side), CLASSES, {**_NARROW, **options})
    sizes = ((side, side), (64, 96), (160, 160), (side + 32, side - 16))
    return Pair(lambda: build(name, case), name, case.options, sizes, loaded_at=(side, side))


def _torchvision(head: str, trunk: str) -> Pair:
    def build() -> Any:
        from parity.references import torchvision

        models = torchvision().models
        dilated = {"replace_stride_with_dilation": (False, True, True), "weights": None}
        kind = getattr(models.segmentation, "fcn" if head == "fcn" else head)
        make = kind._fcn_resnet if head == "fcn" else kind._deeplabv3_resnet
        return make(getattr(models, trunk)(**dilated), CLASSES, False)

    return Pair(build, f"{head}_resnet50", {"encoder": trunk}, ((48, 64), (45, 59)))


PAIRS = {
    **{f"unet {n}": _unet(n) for n in ENCODERS if not n.startswith("inception")},
    **{f"unet {n}": _unet(n, "do not fit") for n in ENCODERS if n.startswith("inception")},
    "unet vgg11 without center": _unet("vgg11", "center=True", center=False),
    "unet mobilenet_v2 without last_conv": _unet("mobilenet_v2", "last_conv", last_conv=False),
    **{f"deeplabv3plus {n} at {s}": _deeplab(n, s) for n in _DILATED for s in (16, 8)},
    "upernet swin": _upernet("upernet_swin_tiny", 224, encoder_options=_SWIN),
    "upernet beit": _upernet("upernet_beit_base", 128, width=24, encoder_options=_BEIT),
    "fcn resnext50_32x4d": _torchvision("fcn", "resnext50_32x4d"),
    "deeplabv3 wide_resnet50_2": _torchvision("deeplabv3", "wide_resnet50_2"),
}


def prepared(pair: Pair) -> Any:
    """The reference with deterministic weights."""
    import torch

    network = pair.build()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(weights(name, tuple(value.shape)))))
    return network.eval()


def deviation(pair: Pair, network: Any, size: Size) -> float:
    """The largest difference of logits over the largest logit.

    Raises:
      UserError: the reference's weights are refused.
    """
    import torch
    from parity.generate import logits_of

    x = image((1, 3, *size))
    with torch.no_grad():
        found = logits_of(network.double()(torch.from_numpy(x).double()))
    expected = found.movedim(1, -1).numpy()
    state = {name: value.numpy() for name, value in network.float().state_dict().items()}
    model = models.create(pair.network, CLASSES, **pair.options)
    at = jnp.zeros((1, *(pair.loaded_at or size), 3))
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), at))
    entry = models.variant(pair.network)
    variables = pretrained.load_state(entry, model, state, like, "The weights", fine_tune=False)
    apply = jax.jit(model.apply, compiler_options={"xla_backend_optimization_level": 0})
    ours = np.asarray(apply(variables, jnp.asarray(np.moveaxis(x, 1, -1))))
    assert ours.shape == expected.shape
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    for name in sys.argv[1:] or PAIRS:
        pair = PAIRS[name]
        network = prepared(pair)
        for size in pair.sizes:
            try:
                text = f"{deviation(pair, network, size):.0e}"
            except Exception as error:
                text = f"{type(error).__name__}: {error}".replace("\n", " ")[:250]
            print(f"{name}, {size[0]}x{size[1]}: {text}", flush=True)
