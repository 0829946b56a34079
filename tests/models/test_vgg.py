"""What VGG has beside the parity with its reference."""

import numpy as np

from jaxvision import models


def test_weights_of_timm_get_the_names_and_shapes_of_torchvision():
    timm = {
        "features.0.weight": np.zeros((64, 3, 3, 3)),
        "pre_logits.fc1.weight": np.arange(2 * 3 * 49.0).reshape(2, 3, 7, 7),
        "pre_logits.fc1.bias": np.zeros(2),
        "pre_logits.fc2.weight": np.zeros((2, 2, 1, 1)),
        "pre_logits.fc2.bias": np.ones(2),
        "head.fc.weight": np.zeros((5, 2)),
        "head.fc.bias": np.zeros(5),
    }
    convert = models.variant("vgg11").convert
    found = convert(timm)
    assert {name: value.shape for name, value in found.items()} == {
        "features.0.weight": (64, 3, 3, 3),
        "classifier.0.weight": (2, 147),
        "classifier.0.bias": (2,),
        "classifier.3.weight": (2, 2),
        "classifier.3.bias": (2,),
        "classifier.6.weight": (5, 2),
        "classifier.6.bias": (5,),
    }
    np.testing.assert_array_equal(found["classifier.0.weight"][0], np.arange(147.0))
    assert convert(found).keys() == found.keys()
