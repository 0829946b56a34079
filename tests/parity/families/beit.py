"""`jaxvision.models.backbones.beit`."""

from parity.case import Case
from parity.families.vit import feature_map as feature_map

CASES = {
    "beit_base_patch16_224": Case(
        (2, 3, 64, 48),
        options={"depth": 4, "width": 96, "num_heads": 3},
        features=tuple(f"blocks.{index}" for index in range(4)),
        gradients=True,
    )
}
PARAMETERS = {
    "beit_base_patch16_224": 86_530_984,
    "beit_base_patch16_384": 86_744_104,
    "beit_large_patch16_224": 304_430_568,
    "beit_large_patch16_384": 304_998_888,
    "beit_large_patch16_512": 305_674_728,
}


def build(name, case):
    from parity.references import timm

    shape = {"embed_dim": case.options["width"], "num_heads": case.options["num_heads"]}
    return timm().create_model(
        name,
        img_size=case.image[2:],
        num_classes=case.classes,
        depth=case.options["depth"],
        **shape,
    )
