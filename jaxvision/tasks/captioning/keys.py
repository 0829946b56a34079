"""Configuration keys of captioning, the group `captioning`."""

from collections.abc import Mapping
from typing import Any

from jaxvision.config import Key
from jaxvision.errors import UserError

KEYS = {
    "label_smoothing": Key(
        0.0, "mass spread over all tokens, in the loss of the next one", least=0, below=1
    ),
    "scheduled_sampling": Key(
        0.0,
        "share of the words read that the network said itself, at the end of the training; it "
        "rises from 0 (Bengio et al. 2015)",
        least=0,
    ),
    "attend_everywhere": Key(
        1.0, "soft attention: weight of looking at each place once in all (Xu et al. 2015)", least=0
    ),
    "reinforce": Key(
        1.0, "hard attention: weight of the reward of where it looked (Xu et al. 2015)", least=0
    ),
    "entropy": Key(0.002, "hard attention: weight of the entropy of where it may look", least=0),
    "self_critical": Key(
        False,
        "learn from CIDEr-D of sampled captions, less that of the likeliest (Rennie et al. 2017); "
        "start from a trained network",
    ),
    "frozen_encoder": Key(
        0.0, "share of the training, from its start, in which the encoder stays as it is", least=0
    ),
    "decoding": Key(
        "greedy",
        "how a caption is found: greedy, beam, or sample",
        choices=("greedy", "beam", "sample"),
        resumable=True,
    ),
    "max_length": Key(
        0,
        "tokens of a caption that is found, its end among them (0: data.max_tokens - 1)",
        least=0,
        resumable=True,
    ),
    "beams": Key(4, "beam: captions that are followed", least=1, resumable=True),
    "length_penalty": Key(
        1.0, "beam: scores are over the length to this power", least=-(2**31), resumable=True
    ),
    "no_repeat_ngram_size": Key(
        0, "no n-gram of this size is said twice (0: off)", least=0, resumable=True
    ),
    "temperature": Key(
        1.0, "sample: below 1 likely words become likelier", above=0, resumable=True
    ),
    "top_k": Key(0, "sample: among so many words (0: all)", least=0, resumable=True),
    "top_p": Key(
        1.0,
        "sample: among the fewest words of this probability (Holtzman et al. 2019)",
        above=0,
        resumable=True,
    ),
}


def check(values: Mapping[str, Any]) -> None:
    """What must agree among the keys.

    Raises:
      UserError: naming them.
    """
    for key in ("scheduled_sampling", "frozen_encoder", "top_p"):
        if values[key] > 1:
            raise UserError(f"captioning.{key} is a share, at most 1; it is {values[key]}.")
    if values["self_critical"]:
        for key in ("label_smoothing", "scheduled_sampling"):
            if values[key]:
                raise UserError(
                    f"captioning.{key} is of words that are taught; set it to 0 with "
                    "captioning.self_critical."
                )
