"""`jaxvision.models.segmentation.patch_classifier`."""

from parity.case import Case

_SMALL = {"widths": (4, 6, 8), "hidden": 12}
CASES = {"patch_classifier": Case((2, 3, 10, 7), 5, _SMALL, gradients=True)}
CLASSES = 33
PARAMETERS = {"patch_classifier": 1_152_673}


def build(name, case):
    from parity.networks.patch_classifier import PatchClassifier

    return PatchClassifier(case.classes, **case.options)
