"""Configuration keys of pose, the group `pose`."""

from jaxvision.config import Key

KEYS = {
    "sigma": Key(
        1.0, "of the Gaussians that are learnt, in pixels of the network's heat maps", above=0
    ),
    "reference": Key(
        "box",
        "the length that PCK measures by: box (the longer side), or the distance of two key "
        "points, as in 'left shoulder,right hip' or, for PCKh, 'neck,head top'",
    ),
    "tolerance": Key(
        0.2, "PCK: how far away a key point may be found, in parts of that length", above=0
    ),
    "flip_test": Key(False, "evaluation and prediction: average over the mirrored image too"),
    "threshold": Key(
        0.1, "score from which a key point is drawn, and counted by predict", least=0, below=1
    ),
}
