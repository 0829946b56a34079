"""How other libraries make the network that exported weights fit, as a line of Python."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What a constructor must be told.

    Attributes:
      classes: how many; 0 if there is no classifier.
      channels: of the images, where they are not those of the published network.
      side: of the images, likewise; only of networks whose parameters depend on it.
      auxiliary: whether heads that only training uses are among the weights; None where the network
        never has any.
      segmentation: whether it gives each pixel a class.
    """

    classes: int
    channels: int | None = None
    side: int | None = None
    auxiliary: bool | None = None
    segmentation: bool = False


def constructor(reference: str, network: Network) -> str:
    """The call, after `import` of its package; "" where none is known.

    Args:
      reference: "timm vit_base_patch16_224": the package and the network's name there.
    """
    package, _, name = reference.partition(" ")
    return _CALLS[package](name, network) if is_known(reference) else ""


def is_known(reference: str) -> bool:
    """Whether it is a network of a library whose constructors are written here."""
    package, _, name = reference.partition(" ")
    return package in _CALLS and bool(re.fullmatch(r"\w+|\w+\('\w+'\)", name))


def _call(begin: str, **arguments: int | bool | None) -> str:
    given = (f"{key}={value}" for key, value in arguments.items() if value is not None)
    return f"{begin}{', '.join(given)})"


def _timm(name: str, network: Network) -> str:
    return _call(
        f'timm.create_model("{name}", ',
        num_classes=network.classes,
        in_chans=network.channels,
        img_size=network.side,
    )


def _torchvision(name: str, network: Network) -> str:
    if network.channels or not network.classes:
        return ""
    if network.segmentation:
        # Unless told otherwise it downloads weights of the backbone.
        return _call(
            f"torchvision.models.segmentation.{name}(weights_backbone=None, ",
            num_classes=network.classes,
            aux_loss=network.auxiliary,
        )
    return _call(
        f"torchvision.models.{name}(",
        num_classes=network.classes,
        image_size=network.side,
        aux_logits=network.auxiliary,
        init_weights=None if network.auxiliary is None else False,
    )


def _pytorchcv(name: str, network: Network) -> str:
    if not network.classes:
        return ""
    return _call(
        f'pytorchcv.model_provider.get_model("{name}", ',
        num_classes=network.classes,
        in_channels=network.channels,
    )


def _segmentation_models(name: str, network: Network) -> str:
    if not network.classes:
        return ""
    kind, encoder = re.findall(r"\w+", name)
    return _call(
        f'segmentation_models_pytorch.{kind}("{encoder}", encoder_weights=None, ',
        classes=network.classes,
        in_channels=network.channels,
    )


_CALLS = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
    "segmentation_models_pytorch": _segmentation_models,
}
