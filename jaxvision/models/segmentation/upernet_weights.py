"""Names of UPerNet's weights: those of transformers, of its older files and of mmsegmentation."""

import re

import numpy as np

from jaxvision.models.transformers_names import (
    TO_TIMM,
    join_attention,
    move_merging,
    moved,
    split_attention,
)
from jaxvision.state_dict import StateDict, renamed

# To ours, in this order. What comes first in each group is of transformers 5, then of older files.
_TO_OURS = (
    (r"^backbone\.swin\.|^beit\.", "backbone."),
    *TO_TIMM,
    (r"^fpn\.fpn1\.conv_transpose1\.", "fpn1.0."),
    (r"^fpn\.fpn1\.normalization\.", "fpn1.1."),
    (r"^fpn\.fpn1\.conv_transpose2\.", "fpn1.3."),
    (r"^fpn\.fpn2\.", "fpn2.0."),
    (r"\.psp_modules\.blocks\.(\d+)\.conv\.", r".psp_modules.\1.1."),
    (r"\.psp_bottleneck\.", ".bottleneck."),
    (r"_head\.conv_seg\.", "_head.classifier."),
    (r"^((?:decode|auxiliary)_head\..*)\.(?:normalization|bn)\.", r"\1.batch_norm."),
    (r"^((?:decode|auxiliary)_head\..*)\.convolution\.", r"\1.conv."),
)
_UNUSED = re.compile(r"^backbone\.(layernorm|pooler)\.|relative_position_index$")
_FROM_OURS = (
    (r"\.patch_embed\.proj\.", ".embeddings.patch_embeddings.projection."),
    (r"\.patch_embed\.norm\.", ".embeddings.norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)
_SWIN = (
    (r"^backbone\.(?!hidden_states_norms)", "backbone.swin."),
    (r"^backbone\.swin\.layers\.", "backbone.swin.encoder.layers."),
    (
        r"\.attn\.relative_position_bias_table",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
)
_BEIT = (
    (r"^backbone\.blocks\.", "beit.layers."),
    (r"^backbone\.cls_token", "beit.embeddings.cls_token"),
    (r"^backbone\.", "beit."),
    (r"\.gamma_", ".lambda_"),
    (
        r"\.attn\.relative_position_bias_table",
        ".relative_position_bias.relative_position_bias_table",
    ),
    (r"^fpn1\.0\.", "fpn.fpn1.conv_transpose1."),
    (r"^fpn1\.1\.", "fpn.fpn1.normalization."),
    (r"^fpn1\.3\.", "fpn.fpn1.conv_transpose2."),
    (r"^fpn2\.0\.", "fpn.fpn2."),
    (r"\.psp_modules\.(\d+)\.1\.", r".psp_modules.blocks.\1.conv."),
    (r"^decode_head\.bottleneck\.", "decode_head.psp_bottleneck."),
    (r"^((?:decode|auxiliary)_head\..*)\.batch_norm\.", r"\1.normalization."),
    (r"^((?:decode|auxiliary)_head\..*)\.conv\.weight$", r"\1.convolution.weight"),
)


def convert(state: StateDict) -> StateDict:
    """A published state_dict by our names."""
    found = renamed(state, _TO_OURS)
    found = {name: value for name, value in found.items() if not _UNUSED.search(name)}
    return join_attention(move_merging(found))


def export(state: StateDict) -> StateDict:
    """A state_dict of ours by the names of transformers 5; the inverse of `convert`."""
    swin = any(name.startswith("backbone.layers.") for name in state)
    if not swin and "backbone.cls_token" not in state:
        return dict(state)
    found = split_attention(state)
    if swin:
        found = {moved(name, -1): value for name, value in found.items()}
    found = renamed(found, (*_FROM_OURS, *(_SWIN if swin else _BEIT)))
    if swin:  # registered there but never used
        width = len(state["backbone.hidden_states_norms.stage4.weight"])
        found["backbone.swin.layernorm.weight"] = np.ones(width, np.float32)
        found["backbone.swin.layernorm.bias"] = np.zeros(width, np.float32)
    return found
