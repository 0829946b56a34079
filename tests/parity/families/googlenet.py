"""`jaxvision.models.backbones.googlenet`."""

from parity.case import Case

_BLOCKS = ("inception3b", "inception4e", "inception5b")
CASES = {
    "googlenet": Case(
        (4, 3, 48, 41), features=("conv1", "conv3", *_BLOCKS), gradients=True, slow="training"
    ),
    "googlenet_lrn": Case(
        (2, 3, 104, 88),
        options={"aux_logits": True},
        features=("conv1", "conv3", *_BLOCKS),
        slow="all",
    ),
}
PARAMETERS = {"googlenet": 6_624_904, "googlenet_lrn": 6_998_552}


def build(name, case):
    aux = case.options.get("aux_logits", False)
    if name == "googlenet_lrn":
        from parity.networks.googlenet import GoogLeNet

        return GoogLeNet(case.classes, aux)
    from parity.references import torchvision

    return torchvision().models.googlenet(
        num_classes=case.classes, aux_logits=aux, init_weights=False
    )
