"""`jaxvision.models.backbones.mlp`."""

from parity.case import Case

CASES = {
    "mlp": Case((8, 3, 32, 32), gradients=True),
    "mlp_256x2": Case((8, 1, 28, 28), gradients=True),
}
CLASSES = 10
PARAMETERS = {"linear": 7_850, "mlp": 308_310, "mlp_256x2": 269_322}


def build(name, case):
    from parity.networks.mlp import FlatMLP
    from parity.references import torchvision

    hidden = [256, 256] if name == "mlp_256x2" else [100]
    channels, height, width = case.image[1:]
    mlp = torchvision().ops.MLP(channels * height * width, [*hidden, case.classes])
    return FlatMLP(mlp)
