"""Configuration keys of self-supervised learning, the group `pretraining`."""

from jaxvision.config import Key

KEYS = {
    "method": Key("dino", "how a backbone learns: dino"),
    "prototypes": Key(65536, "outputs of the head", least=2),
    "hidden": Key(2048, "channels of the head's hidden layers", least=1),
    "bottleneck": Key(256, "channels before the prototypes", least=1),
    "head_norm": Key(False, "batch normalisation in the head: less likely to collapse early"),
    "student_temperature": Key(0.1, "what the student's outputs are divided by", above=0),
    "teacher_temperature": Key(
        0.04, "what the teacher's outputs are divided by; lower is sharper", above=0
    ),
    "teacher_momentum": Key(
        0.996,
        "part of the teacher that stays at a step; rises to 1 by half a cosine",
        least=0,
        below=1,
    ),
    "center_momentum": Key(0.9, "part of the centre that stays at a step", least=0, below=1),
    "probed_block": Key(
        -1,
        "igpt: features are the mean over pixels of what this block's attention is given (-1: of "
        "the middle one)",
        least=-1,
    ),
    "sampling_temperature": Key(1.0, "igpt: of the colours that are drawn", above=0),
    "sampling_top_k": Key(0, "igpt: how many colours are drawn among (0: all)", least=0),
    "sampling_top_p": Key(1.0, "igpt: probability of the colours drawn among", above=0),
    "neighbours": Key(20, "neighbours that vote in knn_accuracy", least=1),
}
