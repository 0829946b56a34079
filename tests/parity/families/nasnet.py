"""`jaxvision.models.backbones.nasnet`."""

from parity.case import Case

_TIMM = (
    *("conv0", "cell_stem_1.conv_1x1.act", "reduction_cell_0.conv_1x1.act"),
    *("reduction_cell_1.conv_1x1.act", "act"),
)
_PYTORCHCV = (
    *("init_block", "stem2_unit.conv1x1.activ", "stage2.unit1.conv1x1.activ"),
    *("stage3.unit1.conv1x1.activ", "activ"),
)
CASES = {
    "nasnetalarge": Case(
        (2, 3, 67, 75), options={"cells": 2, "width": 192}, features=_TIMM, slow="all"
    ),
    "nasnet_4a1056": Case(
        (2, 3, 64, 95),
        options={"cells": 1, "width": 192},
        features=tuple(f"features.{layer}" for layer in _PYTORCHCV),
    ),
}
PARAMETERS = {"nasnetalarge": 88_753_150, "nasnet_4a1056": 5_289_978}


def build(name, case):
    if name == "nasnet_4a1056":
        from pytorchcv.models.nasnet import get_nasnet
        from torch import nn

        network = get_nasnet(
            repeat=case.options["cells"],
            penultimate_filters=case.options["width"],
            init_block_channels=32,
            final_pool_size=7,
            extra_padding=True,
            skip_reduction_layer_input=False,
            in_size=case.image[2:],
            num_classes=case.classes,
        )
        network.features.final_pool = nn.AdaptiveAvgPool2d(1)  # of 7x7 maps in the reference
        return network
    from parity.references import timm

    network = timm().create_model(
        name, num_classes=case.classes, num_features=case.options["width"]
    )
    kept = [6 * stage + cell for stage in range(3) for cell in range(case.options["cells"])]
    cells = [getattr(network, f"cell_{index}") for index in kept]
    for index in range(18):
        delattr(network, f"cell_{index}")
    for index, cell in enumerate(cells):
        setattr(network, f"cell_{index}", cell)

    def forward_features(x):
        first = network.conv0(x)
        previous = network.cell_stem_0(first)
        x = network.cell_stem_1(first, previous)
        for stage in range(3):
            if stage:
                x = getattr(network, f"reduction_cell_{stage - 1}")(x, previous)
            for cell in cells[stage * len(cells) // 3 : (stage + 1) * len(cells) // 3]:
                previous, x = x, cell(x, previous)
        return network.act(x)

    network.forward_features = forward_features
    return network
