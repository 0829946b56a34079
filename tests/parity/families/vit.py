"""`jaxvision.models.backbones.vit`."""

from parity.case import Case

_BLOCKS = tuple(f"blocks.{index}" for index in range(4))
CASES = {
    "vit_tiny_patch16_224": Case(
        (4, 3, 64, 48),
        options={"depth": 4},
        features=_BLOCKS,
        gradients=True,
        slow="training",
    ),
    "vit_scanned": Case(
        (2, 3, 64, 64),
        options={"depth": 4, "scan": True},
        features=_BLOCKS,
        variant="vit_tiny_patch16_224",
    ),
    "deit_tiny_distilled_patch16_224": Case((2, 3, 48, 64), options={"depth": 4}, features=_BLOCKS),
    "vit_mnist": Case((4, 1, 28, 28), gradients=True),
}
PARAMETERS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch16_384": 5_790_376,
    "vit_small_patch32_224": 22_878_952,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch16_384": 22_196_584,
    "vit_small_patch8_224": 22_055_272,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_base_patch8_224": 86_576_872,
    "vit_large_patch32_224": 306_535_400,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch16_384": 304_715_752,
    "vit_huge_patch14_224": 632_045_800,
    "deit_tiny_patch16_224": 5_717_416,
    "deit_small_patch16_224": 22_050_664,
    "deit_base_patch16_224": 86_567_656,
    "deit_tiny_distilled_patch16_224": 5_910_800,
    "deit_small_distilled_patch16_224": 22_436_432,
    "deit_base_distilled_patch16_224": 87_338_192,
    "vit_mnist": 564_072,
}


def build(name, case):
    if name == "vit_mnist":
        from parity.networks.vit_pytorch import ViTPytorch

        return ViTPytorch(case.classes)
    from parity.references import timm

    return timm().create_model(
        case.variant or name,
        img_size=case.image[2:],
        num_classes=case.classes,
        depth=case.options["depth"],
    )


def feature_map(value, case):
    """Tokens [b, n, c] without those before the grid's."""
    rows, columns = case.image[2] // 16, case.image[3] // 16
    return value[:, -rows * columns :].unflatten(1, (rows, columns))
