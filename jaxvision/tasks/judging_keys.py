"""Configuration keys of the network by whose features generated images are judged."""

from jaxvision.config import FREE, Key

KEYS = {
    "judge.network": Key(
        "", "its features are compared, as inception_v3_fid's for the FID; empty: pixels alone are"
    ),
    "judge.options": Key(FREE, "fields of it to override"),
    "judge.weights": Key("", "its trained weights, as model.weights"),
    "judge.classes": Key(
        0, "that its weights know, for the inception score; 0: none is given", least=0
    ),
    "judge.size": Key(0, "side in pixels of what it is shown; 0: as generated", least=0),
    "judge.mean": Key([0.5], "per-channel mean of its images in 0..1", least=-(2**31)),
    "judge.std": Key([0.5], "per-channel standard deviation", above=0),
    "judge.neighbours": Key(3, "that say how far precision and recall reach", least=1),
}
