"""Names of UPerNet's weights: those of transformers, of its older files and of mmsegmentation."""

import re

import numpy as np

from jaxvision.state_dict import StateDict, renamed

# To ours, in this order. What comes first in each group is of transformers 5, then of older files.
_TO_OURS = (
    (r"^backbone\.swin\.|^beit\.", "backbone."),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "backbone.patch_embed.proj."),
    (r"^backbone\.embeddings\.norm\.", "backbone.patch_embed.norm."),
    (r"^backbone\.embeddings\.cls_token", "backbone.cls_token"),
    (r"^backbone\.encoder\.layers\.", "backbone.layers."),
    (r"^backbone\.(?:layers|encoder\.layer)\.(\d+)\.(?!blocks|downsample)", r"backbone.blocks.\1."),
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


def _moved(name: str, by: int) -> str:
    """Swin's mergings, which the reference has at the end of a stage and timm at the next start."""
    return re.sub(
        r"\.layers\.(\d)\.downsample", lambda m: f".layers.{int(m[1]) + by}.downsample", name
    )


def convert(state: StateDict) -> StateDict:
    """A published state_dict by our names; queries, keys and values are one matrix here."""
    found = renamed(state, _TO_OURS)
    found = {name: value for name, value in found.items() if not _UNUSED.search(name)}
    if any(name.startswith("backbone.layers.0.downsample.") for name in found):
        found = {_moved(name, 1): value for name, value in found.items()}
    for name in [n for n in found if n.endswith(".attention.q_proj.weight")]:
        place = name.removesuffix(".attention.q_proj.weight")
        parts = {
            name: found.pop(name)
            for part in "qkv"
            for leaf in ("weight", "bias")
            if (name := f"{place}.attention.{part}_proj.{leaf}") in found
        }
        if f"{place}.attention.k_proj.bias" in parts:
            joined = ["weight", "bias"]
        else:  # BEiT's keys have none
            joined = ["weight"]
            for part in "qv":
                found[f"{place}.attn.{part}_bias"] = parts[f"{place}.attention.{part}_proj.bias"]
        for leaf in joined:
            three = [parts[f"{place}.attention.{part}_proj.{leaf}"] for part in "qkv"]
            found[f"{place}.attn.qkv.{leaf}"] = np.concatenate(three)
    return found


def export(state: StateDict) -> StateDict:
    """A state_dict of ours by the names of transformers 5; the inverse of `convert`."""
    swin = any(name.startswith("backbone.layers.") for name in state)
    if not swin and "backbone.cls_token" not in state:
        return dict(state)
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
            found[_moved(name, -1) if swin else name] = value
    found = renamed(found, (*_FROM_OURS, *(_SWIN if swin else _BEIT)))
    if swin:  # registered there but never used
        width = len(state["backbone.hidden_states_norms.stage4.weight"])
        found["backbone.swin.layernorm.weight"] = np.ones(width, np.float32)
        found["backbone.swin.layernorm.bias"] = np.zeros(width, np.float32)
    return found
