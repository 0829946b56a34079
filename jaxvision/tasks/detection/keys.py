"""Configuration keys of detection, the group `detection`."""

from jaxvision.config import Key

KEYS = {
    "voc": Key(
        [],
        "rules of PASCAL VOC by which average precision is computed too, beside COCO's",
        choices=("2007", "2012"),
    ),
    "clip": Key(True, "cut found boxes off at the photograph's edges, before they are scored"),
    "threshold": Key(
        0.5, "score from which an object is drawn, and listed by predict", least=0, below=1
    ),
}
