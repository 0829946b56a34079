"""Configuration keys of classification and localisation, the group `localization`."""

from jaxvision.config import Key

KEYS = {
    "box_weight": Key(10.0, "weight of the box's squared error beside the cross-entropy", least=0),
    "label_smoothing": Key(0.0, "mass given uniformly to all classes", least=0, below=1),
}
