"""Configuration keys of panoptic segmentation, the group `panoptic`."""

from jaxvision.config import Key
from jaxvision.tasks.instances import keys

KEYS = {
    **keys.KEYS,
    "threshold": Key(
        0.5,
        "score from which an object is a segment, is drawn, and listed by predict",
        least=0,
        below=1,
    ),
    "overlap": Key(
        0.5, "part of an object that surer ones may cover, else it is left out", least=0
    ),
    "stuff_area": Key(
        4096,
        "pixels of the network's image that a segment of stuff must have, else they are void",
        least=0,
    ),
}
