"""ViT and Transformer: the tokens of a vision transformer as the memory of a Transformer decoder.

Liu et al., CPTR: Full Transformer Network for Image Captioning, 2021,
https://arxiv.org/abs/2101.10804, with positions of words that are learnt. Reference:
`tests/parity/networks/captioning.py`, whose decoder is `torch.nn.TransformerDecoder`.
"""

from jaxvision.models.captioning.transformer import (
    TransformerCaptioner,
    from_torch,
    resize_encoder,
    to_torch,
)
from jaxvision.models.variant import Variant


class VitTransformer(TransformerCaptioner):
    """The encoder's tokens, brought to the decoder's width if they are not, and the decoder.

    Attributes: those of `TransformerCaptioner`.
    """

    max_tokens: int = 64


VARIANTS = {
    "vit_transformer": Variant(
        VitTransformer,
        {"encoder": "vit_base_patch16_224"},
        "tests/parity/networks/captioning.py TransformerCaptioner",
        paper="Liu et al. 2021, https://arxiv.org/abs/2101.10804",
        inputs=("image", "tokens"),
        classifier=("decoder.transformer.wte",),
        first="encoder.patch_embed.proj",
        convert=from_torch,
        export=to_torch,
        resize=resize_encoder,
    )
}
