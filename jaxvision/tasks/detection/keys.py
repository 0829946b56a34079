"""Configuration keys of detection, the group `detection`."""

from jaxvision.config import Key

METRICS = ("coco", "voc2007", "voc2012")

KEYS = {
    "metrics": Key(
        ["coco"],
        f"which average precisions are computed: {', '.join(METRICS)}",
        choices=METRICS,
    ),
    "clip": Key(True, "cut found boxes off at the photograph's edges, before they are scored"),
    "threshold": Key(
        0.5, "score from which an object is drawn, and listed by predict", least=0, below=1
    ),
}
