"""`jaxvision.models.backbones.efficientnet`."""

from parity.case import Case

# Each kind of block, cut short.
_CUT = ((3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 1, 2))
_FEATURES = ("blocks.0", "blocks.1", "blocks.2")
CASES = {
    "tf_efficientnet_b0": Case(
        (4, 3, 32, 37),
        options={"stages": _CUT, "width_mult": 0.5},
        features=_FEATURES,
        gradients=True,
    ),
    "efficientnet_b1": Case(
        (2, 3, 48, 37),
        options={"stages": _CUT, "width_mult": 0.5},
        features=_FEATURES,
    ),
    "tf_efficientnet_b2": Case(
        (2, 3, 64, 71),
        features=("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"),
        slow="all",
    ),
}
_COUNTS = (
    5_288_548,
    7_794_184,
    9_109_994,
    12_233_232,
    19_341_616,
    30_389_784,
    43_040_704,
    66_347_960,
)
PARAMETERS = {
    f"{prefix}efficientnet_b{number}": count
    for prefix in ("", "tf_")
    for number, count in enumerate(_COUNTS)
}


def build(name, case):
    from parity.references import timm

    package = timm()
    if "stages" not in case.options:
        return package.create_model(name, num_classes=case.classes)
    from functools import partial

    from timm.layers import get_act_layer
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet
    from torch.nn import BatchNorm2d

    stages = [
        f"{'ds' if e == 1 else 'ir'}_r{depth}_k{k}_s{s}_e{e}_c{c}_se0.25"
        for k, e, c, depth, s in case.options["stages"]
    ]
    rounded = partial(round_channels, multiplier=case.options["width_mult"])
    deeper = 1.1 if name.endswith("b1") else 1.0
    tensorflow = name.startswith("tf_")
    return EfficientNet(
        decode_arch_def([[stage] for stage in stages], deeper),
        case.classes,
        num_features=rounded(1280),
        round_chs_fn=rounded,
        pad_type="same" if tensorflow else "",
        act_layer=get_act_layer("silu"),
        norm_layer=partial(BatchNorm2d, eps=1e-3 if tensorflow else 1e-5),
    )
