"""Networks under the names of several libraries: what export-torch writes, and what is read."""

from typing import Any, NamedTuple


class Export(NamedTuple):
    """A network of ours and the constructor that export-torch prints for it.

    Attributes:
      name: of the network.
      call: the constructor.
      classes: how many.
      package: what `--for` is.
      channels, side: of the images; 0 if they are as published.
      options: for `models.create`.
      slow: whether others check the same code in the default tests.
    """

    name: str
    call: str
    classes: int = 1000
    package: str = ""
    channels: int = 0
    side: int = 0
    options: dict[str, Any] = {}
    slow: bool = False


_SEGMENTATION = "torchvision.models.segmentation."
EXPORTS = (
    Export(
        "inception_v3",
        "torchvision.models.inception_v3(num_classes=1000, aux_logits=False, init_weights=False)",
    ),
    Export(
        "googlenet",
        "torchvision.models.googlenet(num_classes=7, aux_logits=True, init_weights=False)",
        7,
        options={"aux_logits": True},
        slow=True,
    ),
    Export(
        "fcn_resnet50",
        f"{_SEGMENTATION}fcn_resnet50(weights_backbone=None, num_classes=21, aux_loss=False)",
        21,
    ),
    Export(
        "deeplabv3_resnet50",
        f"{_SEGMENTATION}deeplabv3_resnet50(weights_backbone=None, num_classes=3, aux_loss=True)",
        3,
        options={"auxiliary": True},
        slow=True,
    ),
    Export(
        "vit_base_patch16_224",
        "torchvision.models.vit_b_16(num_classes=5, image_size=64)",
        5,
        "torchvision",
        side=64,
    ),
    Export("vit_b_16", "torchvision.models.vit_b_16(num_classes=1000)", slow=True),
    Export(
        "vit_b_16",
        'timm.create_model("vit_base_patch16_224", num_classes=0)',
        0,
        "timm",
        slow=True,
    ),
    Export("swin_t", "torchvision.models.swin_t(num_classes=1000)"),
    Export("mobilenetv2_100", 'timm.create_model("mobilenetv2_100", num_classes=1000)'),
    Export("mobilenet_v2", "torchvision.models.mobilenet_v2(num_classes=1000)", slow=True),
    Export(
        "deit_tiny_distilled_patch16_224",
        'timm.create_model("deit_tiny_distilled_patch16_224", num_classes=9, in_chans=1, '
        "img_size=96)",
        9,
        channels=1,
        side=96,
    ),
    Export(
        "preresnet20_cifar10",
        'pytorchcv.model_provider.get_model("preresnet20_cifar10", num_classes=10, in_channels=1)',
        10,
        channels=1,
    ),
    Export(
        "deeplabv3plus_resnet18",
        'segmentation_models_pytorch.DeepLabV3Plus("resnet18", encoder_weights=None, classes=2)',
        2,
    ),
)

_SMALL = {
    **{"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3},
    **{"intermediate_size": 32, "image_size": 8, "patch_size": 4},
}
# Classes of transformers, their configurations, and sizes.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTForImageClassification": ("ViTConfig", _SMALL),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", _SMALL),
    "BeitForImageClassification": ("BeitConfig", _SMALL | {"use_relative_position_bias": True}),
    "SwinForImageClassification": (
        "SwinConfig",
        {
            **{"embed_dim": 4, "depths": [2, 1], "num_heads": [1, 2], "window_size": 2},
            **{"image_size": 16, "patch_size": 2, "num_labels": 3},
        },
    ),
}
FRACTION = 64  # stored values are whole numbers of such parts


def network(call: str) -> Any:
    """The PyTorch module that a constructor makes."""
    import importlib

    from parity.references import segmentation_models

    segmentation_models()  # imports torchvision and timm
    package = call.partition(".")[0]
    names = {package: importlib.import_module(package)}
    if package == "pytorchcv":
        importlib.import_module("pytorchcv.model_provider")
    return eval(call, names)
