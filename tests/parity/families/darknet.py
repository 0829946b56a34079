"""`jaxvision.models.backbones.darknet`."""

from itertools import pairwise

from parity.case import Case

_WIDTHS = (32, 8, 12, 16, 20, 24)
_STAGES = ((12,), (16, 8, 16), (20,), (24, 12, 24), (32,))
_LAYERS = ("features.stem", *(f"features.layers.{index}" for index in range(5)))
CASES = {
    "darknet53": Case(
        (2, 3, 45, 64),
        options={"widths": _WIDTHS, "depths": (1, 2, 1, 1, 1)},
        features=("conv1", *(f"conv_res_block{number}" for number in range(1, 6))),
        gradients=True,
    ),
    "darknet19": Case(
        (4, 3, 64, 75),
        options={"stem": (8, 3, 1), "stages": _STAGES},
        features=_LAYERS,
        gradients=True,
    ),
    "darknet24": Case(
        (2, 3, 64, 73),
        options={"stem": (8, 7, 2), "stages": ((12,), (6, 8, 8, 16), (20,))},
        features=_LAYERS[:4],
        gradients=True,
    ),
}
PARAMETERS = {"darknet53": 41_609_928, "darknet19": 20_842_376, "darknet24": 23_428_136}


def build(name, case):
    from parity.references import holocron, mmdet
    from torch import nn

    options = case.options
    if name != "darknet53":
        classes = holocron().models.classification
        stem, stages = options["stem"][0], options["stages"]
        if name == "darknet24":
            return classes.darknet.DarknetV1(list(map(list, stages)), case.classes, 3, stem)
        layout = [(widths[0], len(widths) // 2) for widths in stages]
        return classes.darknetv2.DarknetV2(layout, case.classes, 3, stem)
    Darknet, widths = mmdet().models.Darknet, options["widths"]

    class Classifier(Darknet):
        arch_settings = {53: (options["depths"], tuple(pairwise(widths)))}

        def __init__(self):
            super().__init__(norm_eval=False)
            self.fc = nn.Linear(widths[-1], case.classes)

        def train(self, mode=True):
            super().train(mode)
            return self

        def forward(self, image):
            return self.fc(super().forward(image)[-1].mean((2, 3)))

    return Classifier()
