"""`jaxvision.models.backbones.squeezenet`."""

from parity.case import Case

CASES = {
    name: Case((2, 3, 64, 71), features=tuple(f"features.{index}" for index in maps))
    for name, maps in {"squeezenet1_0": (1, 5, 10, 12), "squeezenet1_1": (1, 4, 7, 12)}.items()
}
PARAMETERS = {"squeezenet1_0": 1_248_424, "squeezenet1_1": 1_235_496}


def build(name, case):
    from parity.references import torchvision

    return getattr(torchvision().models, name)(num_classes=case.classes)
