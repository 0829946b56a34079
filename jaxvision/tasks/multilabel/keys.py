"""Configuration keys of multi-label classification, the group `multilabel`."""

from jaxvision.config import Key

KEYS = {
    "threshold": Key(
        0.5, "probability from which a class is said to be there", above=0, below=1, resumable=True
    ),
    "positive_weights": Key(
        [], "weight of each class's loss where it is there (empty: all one)", least=0
    ),
    "label_smoothing": Key(0.0, "targets are moved this far towards one half", least=0, below=1),
    "l2": Key(0.0, "L2 penalty (half squared norm) on kernels, added to the loss", least=0),
    "auxiliary_weight": Key(0.3, "weight of the losses of auxiliary heads", least=0),
}
