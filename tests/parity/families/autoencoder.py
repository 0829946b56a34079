"""`jaxvision.models.segmentation.autoencoder`."""

from parity.case import Case

_SMALL = {"widths": (8, 12, 16)}
CASES = {
    "autoencoder": Case((2, 3, 32, 24), 5, _SMALL, gradients=True),
    "autoencoder_vector": Case((4, 3, 32, 24), 5, {**_SMALL, "latent": 10}, gradients=True),
    "autoencoder_image": Case((2, 3, 32, 24), 0, _SMALL, variant="autoencoder"),
}
CLASSES = 21
PARAMETERS = {"autoencoder": 280_021, "autoencoder_vector": 4_482_773}


def build(name, case):
    from parity.networks.autoencoder import Autoencoder

    return Autoencoder(case.classes, **case.options, size=case.image[2:])
