"""Configuration keys of objects with masks or key points, the group `instances`."""

from jaxvision.config import Key
from jaxvision.tasks.detection import keys

KEYS = {
    **keys.KEYS,
    "sigmas": Key(
        [],
        "how exactly people place each key point, in parts of an object's size, for COCO's metric; "
        "empty: COCO's of a person's 17 points, else 0.05",
        least=0,
    ),
}
