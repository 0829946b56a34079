"""Files of facebookresearch/moco-v3, of which a classifier wants the student's backbone."""

import re

from jaxvision.state_dict import StateDict

_BACKBONE = re.compile(r"^(?:module\.)?base_encoder\.(?!(?:head|fc)\.\d)")


def backbone_of_moco(state: StateDict) -> StateDict:
    """The backbone's own state_dict, without projection; others are returned unchanged."""
    found = {
        _BACKBONE.sub("", name): value for name, value in state.items() if _BACKBONE.match(name)
    }
    return found or state
