"""The registry: `create("resnet50", num_classes=10)`, `names("vit*")`.

A family is one file that defines `VARIANTS: dict[name, Variant]`; it is listed in `_FAMILIES`. The
folder that it is in is its networks' role. A network is also found by its names in other libraries
(`Variant.forms`). A network of your own is entered by the decorator `register`.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvision.errors import UserError, unknown
from jaxvision.layers.intermediates import intermediates as intermediates
from jaxvision.models.autoencoding import ae, autoencoder_kl, dvae, flava_codebook, vae, vqvae
from jaxvision.models.backbones import (
    alexnet,
    beit,
    bninception,
    capsnet,
    darknet,
    densenet,
    efficientnet,
    googlenet,
    inception,
    inception_v4,
    lenet,
    mixer,
    mlp,
    mobilenet,
    mobilenet_v3,
    nasnet,
    residual_cifar,
    resnet,
    resnet_cifar,
    senet,
    shufflenet,
    squeezenet,
    swin,
    vgg,
    vit,
    xception,
)
from jaxvision.models.captioning import (
    cnn_rnn,
    cnn_self_attention,
    cnn_transformer,
    nic,
    show_attend_tell,
    vit_gpt2,
    vit_transformer,
)
from jaxvision.models.detection import (
    centernet,
    detr,
    efficientdet,
    fast_rcnn,
    faster_rcnn,
    fastestdet,
    fcos,
    localizer,
    overfeat,
    retinanet,
    rfcn,
    ssd,
    yolos,
    yolov1,
    yolov2,
    yolov3,
)
from jaxvision.models.generation import dcgan, diffusion_unet, dit, stylegan2
from jaxvision.models.instances import centernet_pose, keypoint_rcnn, mask_rcnn, panoptic_fpn
from jaxvision.models.pose import hourglass, simple_baseline
from jaxvision.models.pretraining import beit as masked_image_modeling
from jaxvision.models.pretraining import corrupted, igpt, mae
from jaxvision.models.restoration import srgan, srresnet
from jaxvision.models.segmentation import (
    autoencoder,
    deconvnet,
    deeplabv3,
    deeplabv3plus,
    dilated,
    espnet,
    fcn,
    patch_classifier,
    segnet,
    unet,
    unet_encoder,
    upernet,
    vnet,
)
from jaxvision.models.variant import Variant
from jaxvision.registry import Registry

Module = TypeVar("Module", bound=type[nn.Module])

_FAMILIES = (
    # Backbones. Classic networks: layers in a row.
    mlp,
    lenet,
    alexnet,
    vgg,
    squeezenet,
    # Inception: branches beside each other, found by hand or by a search.
    googlenet,
    bninception,
    inception,
    inception_v4,
    xception,
    nasnet,
    # Residual and densely connected networks.
    resnet,
    resnet_cifar,
    residual_cifar,
    senet,
    densenet,
    darknet,
    # Networks for phones.
    mobilenet,
    mobilenet_v3,
    efficientnet,
    shufflenet,
    # Capsules.
    capsnet,
    # Transformers, and MLPs over patches.
    vit,
    swin,
    beit,
    mixer,
    # Segmentation.
    unet,
    unet_encoder,
    deeplabv3,
    deeplabv3plus,
    upernet,
    segnet,
    fcn,
    espnet,
    vnet,
    deconvnet,
    dilated,
    autoencoder,
    patch_classifier,
    # Detection.
    localizer,
    overfeat,
    fast_rcnn,
    faster_rcnn,
    rfcn,
    fastestdet,
    fcos,
    retinanet,
    ssd,
    yolov1,
    yolov2,
    yolov3,
    efficientdet,
    centernet,
    detr,
    yolos,
    # Instances.
    mask_rcnn,
    keypoint_rcnn,
    panoptic_fpn,
    centernet_pose,
    # Captioning.
    nic,
    cnn_rnn,
    show_attend_tell,
    cnn_self_attention,
    cnn_transformer,
    vit_transformer,
    vit_gpt2,
    # Generation.
    dcgan,
    stylegan2,
    diffusion_unet,
    dit,
    # Autoencoding.
    ae,
    vae,
    vqvae,
    dvae,
    autoencoder_kl,
    flava_codebook,
    # Restoration.
    srresnet,
    srgan,
    # Pose.
    hourglass,
    simple_baseline,
    # Self-supervised learning.
    mae,
    igpt,
    masked_image_modeling,
    corrupted,
)
_REGISTRY: Registry[Variant] = Registry(
    "model",
    {
        name: dataclasses.replace(entry, role=family.__name__.split(".")[-2])
        for family in _FAMILIES
        for name, entry in family.VARIANTS.items()
    },
    definition=lambda entry: entry.module,
)
ALIASES: dict[str, str] = {
    form.name: name
    for family in _FAMILIES
    for name, entry in family.VARIANTS.items()
    for form in entry.forms
}


def register(name: str, **fields: Any) -> Callable[[Module], Module]:
    """A decorator that enters the Linen module class below it as the network `name`.

        @models.register("my_net", input_shape=(32, 32, 3), options={"width": 16})
        class MyNet(nn.Module): ...

    Args:
      name: what `create` is to call it.
      fields: of `Variant`, beside `module`.

    Raises:
      UserError: another network has the name, or `Variant` has no such field.
    """
    valid = [field.name for field in dataclasses.fields(Variant) if field.name != "module"]
    for field in fields:
        if field not in valid:
            raise unknown("field of a model", field, valid)
    if name in ALIASES:
        raise UserError(f"{name!r} is another name of {ALIASES[name]!r}; choose another name.")

    def enter(module: Module) -> Module:
        _REGISTRY.add(name, Variant(module, **fields))
        return module

    return enter


def variant(name: str) -> Variant:
    """The registry's entry for `name`, which may be its name in another library.

    Raises:
      UserError: no such model.
    """
    return _REGISTRY[ALIASES.get(name, name)]


def create(name: str, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """The Linen module of a registered network, called as `apply(variables, image, train=...)`.

    Args:
      name: one of `names()`.
      num_classes: length of the output; 0 gives the classifier's input instead. None is 1000,
        and all that a network without classes takes.
      overrides: fields of the module to replace, e.g. `dtype=jnp.bfloat16`, `dropout=0.1`.
        `features_only=True` makes it return the tuple of its feature maps, finest first, and
        `tokens_only=True` one over patches the tokens of its last block. A network that stands on
        another takes that one's name as `encoder`, and options for it as `encoder_options`.

    Raises:
      UserError: no such model, or it has no such field, or not the end that is asked for.
    """
    entry = variant(name)
    if num_classes is not None:
        _require(name, "classes" if num_classes else "features")
    if "features_only" in overrides:
        _require(name, "pyramid")
    if "tokens_only" in overrides:
        _require(name, "tokens")
    valid = options(name)
    for key in overrides:
        if key == "pretrained":
            raise UserError(
                f"models.create makes a network without weights; pretrained.create({name!r}, ...) "
                "of jaxvision.pretrained gives it trained ones."
            )
        if key not in valid:
            raise unknown(f"option of model {name!r}", key, [*valid, "num_classes"])
    fields = {**entry.options, **overrides}
    if "encoder" in fields:
        fields["encoder"] = _encoder(entry, fields, overrides.get("encoder_options", {}))
        fields.pop("encoder_options", None)
    if "classes" in entry.ends:
        fields["num_classes"] = 1000 if num_classes is None else num_classes
    return entry.module(**fields)


_ENDS = {
    "classes": "classes",
    "features": "features",
    "pyramid": "a feature pyramid",
    "tokens": "tokens",
}


def _require(name: str, end: str) -> None:
    """Refuses a network that lacks an end, and names those that have it."""
    if end not in variant(name).ends:
        having = [other for other, entry in _REGISTRY.items() if end in entry.ends]
        raise unknown(f"model with {_ENDS[end]}", name, having)


def _encoder(entry: Variant, fields: Mapping[str, Any], wanted: Mapping[str, Any]) -> nn.Module:
    """The network that gives another its feature maps, named as in that one's reference.

    Modules whose `ENCODER_END` is "tokens" get tokens instead, of a network that has them. Of the
    variant's own options for its encoder another one gets those that it has.
    """
    valid = options(fields["encoder"])
    chosen = {
        **{k: v for k, v in entry.options.get("encoder_options", {}).items() if k in valid},
        **({"dtype": fields["dtype"]} if "dtype" in fields else {}),
        **wanted,
    }
    place = getattr(entry.module, "ENCODER", "encoder")
    wanted_end = getattr(entry.module, "ENCODER_END", "pyramid")
    tokens = wanted_end == "tokens" and "tokens" in variant(fields["encoder"]).ends
    end = {"tokens_only" if tokens else "features_only": True}
    return create(fields["encoder"], **end, **chosen).clone(name=place)


def encoder_of(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """(registered name, place in the parameter tree) of the network that `name` stands on.

    Args:
      name: a registered network.
      options: what `create` is called with, which may name another encoder.

    Raises:
      UserError: no such network, or it stands on no other.
    """
    entry = variant(name)
    if "encoder" not in entry.options:
        having = [other for other, one in _REGISTRY.items() if "encoder" in one.options]
        raise unknown("model with an encoder", name, having)
    encoder = options.get("encoder", entry.options["encoder"])
    return encoder, getattr(entry.module, "ENCODER", "encoder")


def options(name: str) -> list[str]:
    """What `create` takes for this network beside `num_classes`.

    Raises:
      UserError: no such model.
    """
    fields = [f.name for f in dataclasses.fields(variant(name).module)]
    if "encoder" in fields:
        fields.append("encoder_options")
    return [field for field in fields if field not in ("num_classes", "parent", "name")]


class FeatureLevel(NamedTuple):
    """One level of a feature pyramid."""

    channels: int
    stride: int


def feature_info(name: str, **overrides: Any) -> tuple[FeatureLevel, ...]:
    """Channels and strides of the maps that `features_only=True` gives, finest first.

    A stride is the published input's side over the map's; where padding makes that no whole number
    it is the nearest power of two.

    Raises:
      UserError: no such model, or it has no feature pyramid.
    """
    model = create(name, features_only=True, **overrides)
    image = jax.ShapeDtypeStruct((1, *variant(name).input_shape), jnp.float32)
    maps = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)

    def stride(side: int) -> int:
        ratio = image.shape[1] / side
        return int(ratio) if ratio == int(ratio) else 2 ** round(math.log2(ratio))

    return tuple(FeatureLevel(x.shape[-1], stride(x.shape[1])) for x in maps)


def names(pattern: str = "*") -> list[str]:
    """Names of the registered networks that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def __getattr__(attribute: str) -> Any:
    # `models.list("vit*")` reads as users expect it; a module-level `list` would hide the builtin.
    if attribute == "list":
        return names
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
