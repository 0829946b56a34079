"""CNN and Transformer: the last map of a CNN as the memory of a Transformer decoder.

Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762: norms after the
sums, sines as positions, one matrix for words read and words said. Places have positions of Carion
et al., End-to-End Object Detection with Transformers, 2020, https://arxiv.org/abs/2005.12872.
Reference: `tests/parity/networks/captioning.py`, whose decoder is `torch.nn.TransformerDecoder`.
"""

from jaxvision.models.captioning.transformer import TransformerCaptioner, from_torch, to_torch
from jaxvision.models.variant import Variant


class CnnTransformer(TransformerCaptioner):
    """The places of a map, brought to the decoder's width, and a Transformer decoder over them.

    Attributes: those of `TransformerCaptioner`.
    """

    image_positions: bool = True


VARIANTS = {
    "cnn_transformer": Variant(
        CnnTransformer,
        {"encoder": "resnet50"},
        "tests/parity/networks/captioning.py TransformerCaptioner",
        paper="Vaswani et al. 2017, https://arxiv.org/abs/1706.03762",
        inputs=("image", "tokens"),
        classifier=("decoder.transformer.wte",),
        first="encoder.conv1",
        convert=from_torch,
        export=to_torch,
    )
}
