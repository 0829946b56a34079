"""Configuration keys of self-supervised learning, the group `pretraining`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import FREE, Key
from jaxvision.errors import UserError

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
    # -- of networks that say what was hidden from them ------------------------------------------
    "pool": Key(
        "",
        "features of networks that reconstruct: the class token, the mean of the patches; empty: "
        "as the method's paper probes them",
        choices=("", "token", "mean"),
    ),
    "mask_ratio": Key(0.75, "mae: part of the patches that is hidden", above=0, below=1),
    "normalized_pixels": Key(
        True, "mae: whether the pixels of a patch are standardised before they are learnt"
    ),
    "hidden_patches": Key(75, "beit: how many patches of an image are hidden at most", least=1),
    "least_block": Key(16, "beit: patches of the smallest block that is hidden", least=1),
    "tokenizer.network": Key("", "beit: gives each patch its token; it is never trained"),
    "tokenizer.options": Key(FREE, "fields of it to override"),
    "tokenizer.weights": Key("", "its trained weights, as model.weights"),
    "tokenizer.size": Key(0, "side in pixels of what it is shown; 0: as the network", least=0),
    "corruption": Key(
        "masking",
        "denoising: values that are 0, have Gaussian noise added, or are 0 or 1",
        choices=("masking", "gaussian", "salt_and_pepper"),
    ),
    "corruption_amount": Key(
        0.25,
        "denoising: part of the values, or the noise's standard deviation for pixels in 0..1",
        above=0,
    ),
    "context_squares": Key(0, "context: how many squares are cut out; 0: the centre is", least=0),
    "context_side": Key(
        0.5, "context: side of what is cut out, as part of the image's", above=0, below=1
    ),
    "context_overlap": Key(4, "context: pixels around it that are learnt too", least=0),
    "context_overlap_weight": Key(10.0, "context: how much more these count", above=0),
    # -- iGPT -----------------------------------------------------------------------------------
    "probed_block": Key(
        -1,
        "igpt: features are the mean over pixels of what this block's attention is given (-1: of "
        "the middle one)",
        least=-1,
    ),
    "sampling_temperature": Key(1.0, "igpt: of the colours that are drawn", above=0),
    "sampling_top_k": Key(0, "igpt: how many colours are drawn among (0: all)", least=0),
    "sampling_top_p": Key(1.0, "igpt: probability of the colours drawn among", above=0),
}


def check(values: Mapping[str, Any]) -> None:
    """Raises:
    UserError: more is corrupted than there is.
    """
    if values["corruption"] != "gaussian" and values["corruption_amount"] >= 1:
        raise UserError(
            f"pretraining.corruption_amount is a part of the values, below 1, where corruption is "
            f"{values['corruption']}."
        )
