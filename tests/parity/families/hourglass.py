"""`jaxvision.models.pose.hourglass`."""

from parity.case import Case

CASES = {
    # kornia's trunk, whose channels are fixed; a side that is odd on the way down.
    "hourglass2": Case((1, 3, 36, 32), 5, {"depth": 2}),
    "hourglass2_narrow": Case(
        (3, 3, 16, 24),
        4,
        {"features": 16, "blocks": 2, "depth": 1},
        gradients=True,
        variant="hourglass2",
    ),
}
CLASSES = 16
PARAMETERS = {"hourglass1": 3_586_960, "hourglass2": 6_730_912, "hourglass8": 25_594_624}


def build(name, case):
    if name == "hourglass2":
        return of_kornia(case.classes, 2, case.options["depth"])
    from parity.networks.hourglass import HourglassNet

    return HourglassNet(case.classes, **case.options)


def of_kornia(classes, stacks, depth):
    """kornia's network with the scores of pytorch-pose, which it then returns."""
    from kornia.feature.sold2 import backbones
    from torch import nn

    class Scored(backbones.HourglassNet):
        def forward(self, x):
            scores = []
            hooks = [
                layer.register_forward_hook(lambda layer, inputs, output: scores.append(output))
                for layer in self.score
            ]
            super().forward(x)
            for hook in hooks:
                hook.remove()
            return scores

    def head(channels):
        return nn.Conv2d(channels, classes, 1)

    return Scored(backbones.Bottleneck2D, head, depth, stacks, 1, classes, 3)
