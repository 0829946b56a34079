"""Weights of segmentation networks by the names that their published files have."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from parity.deterministic import weights
from safetensors.numpy import save_file

from jaxvision import models, pretrained
from jaxvision.interop import torch_weights
from jaxvision.models.segmentation import upernet_weights

SWIN = {"depths": (1, 2, 1, 1), "width": 12, "num_heads": (1, 1, 2, 2), "window": 2}
BEIT = {"depth": 4, "width": 24, "num_heads": 2, "out_blocks": (0, 1, 2, 3)}
SMALL = {"width": 16, "auxiliary_width": 8}
# Of files that transformers 4 wrote: their names from ours.
SHARED = [
    (r"\.patch_embed\.proj\.", ".embeddings.patch_embeddings.projection."),
    (r"\.patch_embed\.norm\.", ".embeddings.norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]
OF_SWIN = [
    *SHARED,
    (r"^backbone\.layers\.", "backbone.encoder.layers."),
    (r"\.attn\.relative_", ".attention.self.relative_"),
    (r"\.attn\.(query|key|value)\.", r".attention.self.\1."),
]
OF_BEIT = [
    *SHARED,
    (r"^backbone\.blocks\.", "beit.encoder.layer."),
    (r"^backbone\.cls_token", "beit.embeddings.cls_token"),
    (r"^backbone\.", "beit."),
    (r"\.gamma_", ".lambda_"),
    (r"\.attn\.relative_", ".attention.attention.relative_position_bias.relative_"),
    (r"\.attn\.(query|key|value)\.", r".attention.attention.\1."),
    (r"\.batch_norm\.", ".bn."),
]


def state_of(name, shape=(64, 64, 3), **options):
    """A state_dict by our names."""
    model = models.create(name, 5, **options)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    shapes = torch_weights.torch_shapes(variables)
    return {place: weights(place, shape) for place, shape in shapes.items()}


def as_of_old(state, patterns):
    """What transformers 4 would have written of it."""
    found = {}
    for name, value in state.items():
        place, _, leaf = name.partition(".attn.")
        if leaf.startswith("qkv."):
            for part, third in zip(("query", "key", "value"), np.split(value, 3)):
                found[f"{place}.attn.{part}.{leaf[4:]}"] = third
        elif leaf in ("q_bias", "v_bias"):
            found[f"{place}.attn.{'query' if leaf == 'q_bias' else 'value'}.bias"] = value
        else:
            found[name] = value
    for pattern, replacement in patterns:
        found = {re.sub(pattern, replacement, name): value for name, value in found.items()}
    return found


def same(ours, theirs):
    counted = {name for name in ours if name.endswith("num_batches_tracked")}
    assert ours.keys() - counted == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, name)


def test_swin_of_transformers_4():
    state = state_of("upernet_swin_tiny", **SMALL, encoder_options=SWIN)
    old = as_of_old(state, OF_SWIN)
    # Merging belongs to the stage before it there.
    old = {
        re.sub(r"(?<=layers\.)\d(?=\.downsample)", lambda m: str(int(m[0]) - 1), name): value
        for name, value in old.items()
    }
    place = "backbone.encoder.layers.0"
    for name in (
        f"{place}.blocks.0.attention.self.query.weight",
        f"{place}.blocks.0.attention.self.relative_position_bias_table",
        f"{place}.blocks.0.attention.output.dense.bias",
        f"{place}.blocks.0.intermediate.dense.weight",
        f"{place}.blocks.0.output.dense.weight",
        f"{place}.downsample.reduction.weight",
        "backbone.embeddings.patch_embeddings.projection.weight",
        "backbone.hidden_states_norms.stage1.weight",
        "decode_head.psp_modules.0.1.conv.weight",
        "decode_head.fpn_bottleneck.batch_norm.running_var",
        "auxiliary_head.convs.0.batch_norm.weight",
        "auxiliary_head.classifier.bias",
    ):
        assert name in old
    assert f"{place[:-1]}3.downsample.reduction.weight" not in old
    old[f"{place}.blocks.0.attention.self.relative_position_index"] = np.zeros((4, 4), np.int64)
    same(upernet_weights.convert(old), state)


def test_beit_of_transformers_4():
    state = state_of("upernet_beit_base", width=24, auxiliary_width=8, encoder_options=BEIT)
    old = as_of_old(state, OF_BEIT)
    place = "beit.encoder.layer.0"
    bias = f"{place}.attention.attention.relative_position_bias"
    for name in (
        "beit.embeddings.cls_token",
        "beit.embeddings.patch_embeddings.projection.bias",
        f"{place}.attention.attention.query.bias",
        f"{place}.attention.attention.key.weight",
        f"{place}.attention.output.dense.weight",
        f"{place}.intermediate.dense.weight",
        f"{place}.output.dense.bias",
        f"{place}.lambda_1",
        f"{bias}.relative_position_bias_table",
        "fpn1.0.weight",
        "fpn1.1.running_mean",
        "fpn1.3.bias",
        "fpn2.0.weight",
        "decode_head.psp_modules.0.1.conv.weight",
        "decode_head.psp_modules.0.1.bn.running_mean",
        "decode_head.bottleneck.bn.weight",
        "auxiliary_head.convs.0.bn.running_var",
    ):
        assert name in old
    assert f"{place}.attention.attention.key.bias" not in old
    old[f"{bias}.relative_position_index"] = np.zeros((17, 17), np.int64)
    same(upernet_weights.convert(old), state)


def test_beits_tables_fit_other_images(tmp_path):
    options = {"width": 24, "auxiliary_width": 8, "encoder_options": BEIT}
    path = tmp_path / "beit.safetensors"
    save_file(as_of_old(state_of("upernet_beit_base", **options), OF_BEIT), path)
    _, variables = pretrained.create("upernet_beit_base", str(path), image_size=(96, 96), **options)
    table = "backbone.blocks.0.attn.relative_position_bias_table"
    assert torch_weights.torch_shapes(variables)[table] == (11 * 11 + 3, 2)


def test_auxiliary_heads_are_dropped_or_kept(tmp_path):
    trunk = {"encoder": "resnet18", "encoder_options": {"output_stride": 32}}
    whole = state_of("fcn_resnet50", auxiliary=True, **trunk)
    assert "aux_classifier.4.bias" in whole
    save_file(whole, tmp_path / "fcn.safetensors")

    def loaded(**options):
        where = str(tmp_path / "fcn.safetensors")
        _, variables = pretrained.create(
            "fcn_resnet50", where, image_size=(64, 64), **trunk, **options
        )
        return torch_weights.to_state_dict(variables)

    alone = loaded()
    assert "aux_classifier.4.bias" not in alone
    same({**whole, **alone}, whole)
    both = loaded(auxiliary=True, num_classes=3)
    assert both["aux_classifier.4.weight"].shape[0] == 3
    np.testing.assert_array_equal(both["aux_classifier.0.weight"], whole["aux_classifier.0.weight"])


def test_volumes(tmp_path):
    form = {"width": 1, "depths": (1,) * 5, "up_depths": (1,) * 4}
    state = state_of("vnet", (16, 16, 16, 1), **form)
    save_file(state, tmp_path / "vnet.safetensors")
    where = str(tmp_path / "vnet.safetensors")
    model, variables = pretrained.create("vnet", where, image_size=(16, 16, 16), **form)
    assert model.num_classes == 5
    same(torch_weights.to_state_dict(variables), state)
