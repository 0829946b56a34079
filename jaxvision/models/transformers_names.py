"""Hugging Face transformers' names of ViT, DeiT, BEiT and Swin, brought to timm's.

Its files have other names than its modules of version 5; both are read. Queries, keys and values
are three matrices there and one in timm.
"""

import re

import numpy as np

from jaxvision.state_dict import StateDict, renamed

# In this order. `backbone` is where a network that stands on one of these has it.
TO_TIMM = (
    (r"^(backbone\.)?embeddings\.patch_embeddings\.projection\.", r"\1patch_embed.proj."),
    (r"^(backbone\.)?embeddings\.norm\.", r"\1patch_embed.norm."),
    (r"^(backbone\.)?embeddings\.cls_token", r"\1cls_token"),
    (r"^(backbone\.)?encoder\.layers\.", r"\1layers."),
    (r"^(backbone\.)?(?:layers|encoder\.layer)\.(\d+)\.(?!blocks|downsample)", r"\1blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_", ".gamma_"),
    (r"\.attention\.(?:self|attention)\.query\.", ".attention.q_proj."),
    (r"\.attention\.(?:self|attention)\.key\.", ".attention.k_proj."),
    (r"\.attention\.(?:self|attention)\.value\.", ".attention.v_proj."),
    (r"\.attention\.(?:o_proj|output\.dense)\.", ".attn.proj."),
    (
        r"(?:\.attention)?(?:\.self|\.attention)?(?:\.relative_position_bias)"
        r"?\.relative_position_bias_table$",
        ".attn.relative_position_bias_table",
    ),
    (r"\.attn\.attn\.", ".attn."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
_CLASSIFIERS = (
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^(?:shared_position_bias|encoder)\.attn\.(?=relative_position)", "rel_pos_bias."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^layernorm\.", "norm."),
    (r"^(?:cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
_UNUSED = re.compile(r"relative_position_index$|^pooler\.dense\.")  # the latter of bare networks


def is_transformers(state: StateDict) -> bool:
    """Whether a state_dict has these names."""
    return any(n.endswith("embeddings.patch_embeddings.projection.weight") for n in state)


def from_transformers(state: StateDict) -> StateDict:
    """A classifier's state_dict by timm's names; its last layer is `head`."""
    found = renamed(state, ((r"^(?:vit|deit|beit|swin)\.", ""), *TO_TIMM, *_CLASSIFIERS))
    found = {name: value for name, value in found.items() if not _UNUSED.search(name)}
    return join_attention(move_merging(found))


def move_merging(state: StateDict) -> StateDict:
    """Moves Swin's mergings from the ends of stages to the starts of the next, as in timm."""
    if not any(re.match(r"(backbone\.)?layers\.0\.downsample\.", name) for name in state):
        return state
    return {moved(name, 1): value for name, value in state.items()}


def moved(name: str, by: int) -> str:
    """The name in the stage that is `by` stages later."""
    return re.sub(
        r"(^|\.)layers\.(\d)\.downsample",
        lambda m: f"{m[1]}layers.{int(m[2]) + by}.downsample",
        name,
    )


def join_attention(state: StateDict) -> StateDict:
    """A state_dict with one matrix of queries, keys and values; BEiT's keys have no bias."""
    found = dict(state)
    for place in [n.removesuffix("q_proj.weight") for n in found if n.endswith(".q_proj.weight")]:
        to = place.removesuffix("attention.") + "attn."
        for leaf in ("weight", "bias"):
            names = {part: f"{place}{part}_proj.{leaf}" for part in "qkv"}
            parts = {part: found.pop(name) for part, name in names.items() if name in found}
            if len(parts) == 3:
                found[f"{to}qkv.{leaf}"] = np.concatenate(list(parts.values()))
            else:
                found |= {f"{to}{part}_{leaf}": value for part, value in parts.items()}
    return found


def split_attention(state: StateDict) -> StateDict:
    """The inverse of `join_attention`, by the names of transformers 5."""
    found: StateDict = {}
    for name, value in state.items():
        place, _, leaf = name.partition(".attn.")
        if leaf in ("qkv.weight", "qkv.bias"):
            kind = leaf.removeprefix("qkv.")
            for part, third in zip("qkv", np.split(value, 3)):
                found[f"{place}.attention.{part}_proj.{kind}"] = third
        elif leaf in ("q_bias", "v_bias"):
            found[f"{place}.attention.{leaf[0]}_proj.bias"] = value
        else:
            found[name] = value
    return found
