"""`jaxvision.models.backbones.swin`."""

from parity.case import Case

_STAGES = tuple(f"layers.{index}" for index in range(4))
CASES = {
    # Stages of 24, 12, 6 and 3 tokens a side: shifted windows, padding, windows cut to the map.
    "swin_tiny_patch4_window7_224": Case(
        (2, 3, 96, 96),
        options={"depths": (2, 2, 2, 2), "width": 24},
        features=_STAGES,
        gradients=True,
    ),
    "swin_base_patch4_window12_384": Case(
        (1, 3, 96, 96), options={"depths": (1, 2, 1, 1), "width": 32}, features=_STAGES, slow="all"
    ),
}
PARAMETERS = {
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_base_patch4_window12_384": 87_903_584,
    "swin_large_patch4_window7_224": 196_532_476,
    "swin_large_patch4_window12_384": 196_735_516,
}


def build(name, case):
    from parity.references import timm

    return timm().create_model(
        name,
        img_size=case.image[2:],
        num_classes=case.classes,
        depths=case.options["depths"],
        embed_dim=case.options["width"],
    )


def feature_map(value, case):
    """Stages of the reference are channels-last."""
    return value
