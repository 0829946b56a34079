"""Configuration keys of self-supervised learning, the group `pretraining`."""

from jaxvision.config import FREE, Key

KEYS = {
    "method": Key("dino", "how a backbone learns: dino, mocov3; others are those of networks"),
    "augment": Key(
        FREE, "by name of views, a list of augmentations for each; others have data.augment"
    ),
    "neighbours": Key(20, "neighbours that vote in knn_accuracy", least=1),
    # -- of a student and its teacher -----------------------------------------------------------
    "hidden": Key(2048, "channels of the head's hidden layers", least=1),
    "bottleneck": Key(256, "channels of the head's output, in DINO before the prototypes", least=1),
    "teacher_momentum": Key(
        0.996,
        "part of the teacher that stays at a step; rises to 1 by half a cosine",
        least=0,
        below=1,
    ),
    # -- DINO -----------------------------------------------------------------------------------
    "prototypes": Key(65536, "outputs of the head", least=2),
    "head_norm": Key(False, "batch normalisation in the head: less likely to collapse early"),
    "student_temperature": Key(0.1, "what the student's outputs are divided by", above=0),
    "teacher_temperature": Key(
        0.04, "what the teacher's outputs are divided by; lower is sharper", above=0
    ),
    "first_teacher_temperature": Key(0.04, "the same at the first step", above=0),
    "teacher_temperature_warmup": Key(
        0.0, "part of the training in which it goes from the first to the other", least=0, below=1
    ),
    "frozen_prototypes": Key(
        0.0,
        "part of the training, its first, in which the last layer rests",
        least=0,
        below=1,
    ),
    "center_momentum": Key(0.9, "part of the centre that stays at a step", least=0, below=1),
    # -- MoCo v3 --------------------------------------------------------------------------------
    "temperature": Key(0.2, "what similarities of queries and keys are divided by", above=0),
    "projection_layers": Key(3, "of the head; 2 for convolutional backbones", least=1),
}
