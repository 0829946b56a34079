"""ViT and GPT-2: a vision transformer and a language model that attends to its tokens.

Kumar, The Illustrated Image Captioning using transformers, 2022,
https://ankur3107.github.io/blogs/the-illustrated-image-captioning-using-transformers/, by the way
of Rothe et al., Leveraging Pre-trained Checkpoints for Sequence Generation Tasks, 2020,
https://arxiv.org/abs/1907.12461. GPT-2: Radford et al., Language Models are Unsupervised Multitask
Learners, 2019. Reference: transformers' `VisionEncoderDecoderModel` of `ViTModel` and
`GPT2LMHeadModel`. The ViT's layers have timm's names, and `convert` and `export` bring one to the
other; kernels of GPT-2 are transposed there.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxvision.errors import UserError
from jaxvision.models.captioning.transformer import TransformerCaptioner, resize_encoder
from jaxvision.models.transformers_names import from_transformers, is_transformers, split_attention
from jaxvision.models.variant import Variant
from jaxvision.state_dict import StateDict, renamed

_TABLE, _HEAD = "decoder.transformer.wte.weight", "decoder.lm_head.weight"
_MASKS = re.compile(r"\.(?:attn|crossattention)\.(?:masked_)?bias$")  # of older files
_KERNEL = re.compile(r"^decoder\.transformer\.h\..*\.(?:c_attn|q_attn|c_proj|c_fc)\.weight$")
_NORMS = {"ln_1": "norm1", "ln_cross_attn": "norm2", "ln_2": "norm3"}
_ENCODER_FROM_OURS = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
)


class VitGpt2(TransformerCaptioner):
    """The encoder's tokens, brought to the decoder's width if they are not, and GPT-2.

    A GPT-2 has one token for begin, end and padding.

    Attributes: those of `TransformerCaptioner`.
    """

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    max_tokens: int = 1024
    pre_norm: bool = True
    activation: str = "gelu_tanh"


def _parts(state: StateDict) -> tuple[StateDict, StateDict]:
    """What the encoder has, without its prefix, and the rest."""
    encoder = {
        name.removeprefix("encoder."): value
        for name, value in state.items()
        if name.startswith("encoder.")
    }
    return encoder, {n: value for n, value in state.items() if not n.startswith("encoder.")}


def _transposed(state: StateDict) -> StateDict:
    return {name: value.T if _KERNEL.match(name) else value for name, value in state.items()}


def _norms(names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(rf"(\.h\.\d+)\.{old}\.", rf"\1.{new}.") for old, new in names.items()]


def convert(state: StateDict) -> StateDict:
    """A state_dict of transformers by our names; others unchanged.

    Raises:
      UserError: its last layer is not the matrix of its words.
    """
    encoder, rest = _parts(state)
    if not is_transformers(encoder):
        return state
    rest = {name: value for name, value in rest.items() if not _MASKS.search(name)}
    if _HEAD in rest and not np.array_equal(rest.pop(_HEAD), rest[_TABLE]):
        raise UserError(f"{_HEAD} is not {_TABLE}; in this network they are one matrix.")
    ours = {f"encoder.{name}": value for name, value in from_transformers(encoder).items()}
    return ours | _transposed(renamed(rest, _norms(_NORMS)))


def export(state: StateDict) -> StateDict:
    """A state_dict of ours by the names of transformers 5; the inverse of `convert`.

    One whose encoder is no ViT is left as it is.
    """
    encoder, rest = _parts(state)
    if "patch_embed.proj.weight" not in encoder:
        return dict(state)
    theirs = renamed(split_attention(encoder), _ENCODER_FROM_OURS)
    found = {f"encoder.{name}": value for name, value in theirs.items()}
    rest = renamed(rest, _norms({ours: name for name, ours in _NORMS.items()}))
    return found | _transposed(rest) | {_HEAD: rest[_TABLE]}


VARIANTS = {
    "vit_gpt2": Variant(
        VitGpt2,
        {"encoder": "vit_base_patch16_224", "encoder_options": {"norm_epsilon": 1e-12}},
        "transformers VisionEncoderDecoderModel of ViTModel and GPT2LMHeadModel",
        paper="Rothe et al. 2020, https://arxiv.org/abs/1907.12461",
        inputs=("image", "tokens"),
        classifier=("decoder.transformer.wte",),
        first="encoder.patch_embed.proj",
        convert=convert,
        export=export,
        resize=resize_encoder,
    )
}
