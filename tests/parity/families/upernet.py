"""`jaxvision.models.segmentation.upernet`."""

from parity.case import Case

_SMALL = {"width": 16, "auxiliary_width": 8}
_SWIN = {"depths": (1, 2, 1, 1), "width": 12, "num_heads": (1, 1, 2, 2), "window": 2}
_BEIT = {"depth": 5, "width": 24, "num_heads": 2, "out_blocks": (0, 1, 2, 3)}
CASES = {
    "upernet_resnet18": Case(
        (2, 3, 64, 96), 5, {**_SMALL, "auxiliary": False}, gradients=True, slow="all"
    ),
    "upernet_resnet18_shallow": Case(
        (2, 3, 64, 96),
        5,
        {**_SMALL, "auxiliary": False, "encoder_options": {"depths": (1, 1, 1, 1)}},
        gradients=True,
        variant="upernet_resnet18",
    ),
    "upernet_swin_tiny": Case((2, 3, 64, 96), 5, {**_SMALL, "encoder_options": _SWIN}, slow="all"),
    # Windows that no map divides into, shifted, and one map smaller than a window.
    "upernet_swin_shifted": Case(
        (1, 3, 75, 50),
        5,
        {**_SMALL, "encoder_options": {**_SWIN, "depths": (2, 2, 2, 2), "window": 4}},
        variant="upernet_swin_tiny",
    ),
    # Biases of 8x8 patches on 5x6.
    "upernet_beit_resized": Case(
        (1, 3, 80, 96),
        5,
        {"width": 24, "auxiliary_width": 8, "encoder_options": {**_BEIT, "grid": (8, 8)}},
        variant="upernet_beit_base",
    ),
    "upernet_beit_base": Case(
        (2, 3, 64, 64), 5, {"width": 24, "auxiliary_width": 8, "encoder_options": _BEIT}
    ),
}
CLASSES = 150
PARAMETERS = {
    "upernet_resnet18": 41_484_140,
    "upernet_resnet50": 66_496_876,
    "upernet_resnet101": 85_489_004,
    "upernet_swin_tiny": 59_943_398 - 2 * 768,  # without the last norm, which is never used
    "upernet_swin_small": 81_259_766,
    "upernet_swin_base": 121_415_076,
    "upernet_swin_large": 233_962_976,
    "upernet_beit_base": 163_407_980,
    "upernet_beit_large": 441_271_084,
}


def build(name, case):
    from parity.networks.upernet import UPerNet, upsampled
    from parity.references import first_blocks, torchvision, transformers

    width, auxiliary = case.options["width"], case.options["auxiliary_width"]
    if "resnet" in name:
        trunk = getattr(torchvision().models, (case.variant or name).removeprefix("upernet_"))()
        if "encoder_options" in case.options:
            first_blocks(trunk)
        network = UPerNet(trunk, (64, 128, 256, 512), case.classes, width, auxiliary)
        del network.auxiliary_head  # has no part in the loss that is compared
        return network
    inner, package = case.options["encoder_options"], transformers()
    if "swin" in name:
        trunk = package.SwinConfig(
            out_features=["stage1", "stage2", "stage3", "stage4"],
            embed_dim=inner["width"],
            window_size=inner["window"],
            depths=list(inner["depths"]),
            num_heads=list(inner["num_heads"]),
        )
        return upsampled(
            package.UperNetForSemanticSegmentation(
                package.UperNetConfig(
                    backbone_config=trunk,
                    num_labels=case.classes,
                    hidden_size=width,
                    auxiliary_in_channels=4 * inner["width"],
                    auxiliary_channels=auxiliary,
                )
            )
        )
    return upsampled(
        package.BeitForSemanticSegmentation(
            package.BeitConfig(
                num_hidden_layers=inner["depth"],
                hidden_size=width,
                num_attention_heads=inner["num_heads"],
                intermediate_size=4 * width,
                out_indices=[block + 2 for block in inner["out_blocks"]],
                num_labels=case.classes,
                image_size=16 * inner["grid"][0] if "grid" in inner else case.image[2],
                use_relative_position_bias=True,
                auxiliary_channels=auxiliary,
            )
        )
    )
