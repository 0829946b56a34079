"""BEiT's pre-training: Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2021.

https://arxiv.org/abs/2106.08254. References: transformers' `BeitForMaskedImageModeling` with
`use_mask_token` and `use_shared_relative_position_bias`, and the authors'
`VisionTransformerForMaskedImageModeling` (microsoft/unilm). Here the encoder has timm's names below
`encoder`; `convert` brings both of the others to these. Norms have timm's epsilon, 1e-6; the
configurations on the Hub say 1e-12. The authors' `fix_init_weight`, by which later blocks start
smaller, is left out.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.models.backbones import beit
from jaxvision.models.transformers_names import from_transformers, is_transformers
from jaxvision.models.variant import Variant
from jaxvision.state_dict import StateDict, renamed

_normal = nn.initializers.truncated_normal(0.02)


class MaskedImageModeling(nn.Module):
    """A BEiT that sees a learned token in place of some patches, and a classifier of each patch.

    Attributes:
      encoder: gives tokens, and lets a token take the place of patches, as `beit_...` do.
      codes: how many tokens images are made of.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    METHOD: ClassVar[str] = "beit"
    ENCODER_END: ClassVar[str] = "tokens"

    encoder: Any = None
    codes: int = 8192
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        self.mask_token = self.param("mask_token", _normal, (1, 1, self.encoder.width))
        self.norm = LayerNorm(dtype=self.dtype)
        self.lm_head = Dense(self.codes, dtype=self.dtype, kernel_init=_normal)

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        hidden: Bool[Array, "b n"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b n k"]:
        """The logits of each patch's token.

        Args:
          image: normalised images.
          hidden: the patches that the encoder does not see; None is none.
          train: whether dropout and stochastic depth act.
        """
        tokens = self.encoder(image, train, hidden, self.mask_token[0, 0])
        return self.lm_head(self.norm(tokens)[:, 1:])

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b m c"]:
        """The tokens of whole images."""
        return self.norm(self.encoder(image, train))


def convert(state: StateDict) -> StateDict:
    """State_dicts of transformers and of the authors by our names; others unchanged."""
    if is_transformers(state):
        state = from_transformers(state)
    elif "patch_embed.proj.weight" not in state:
        return state
    kept = {n: v for n, v in state.items() if not n.endswith("relative_position_index")}
    return renamed(kept, ((r"^(?!lm_head\.|norm\.|mask_token$)", "encoder."),))


def _beit(size: str) -> Variant:
    encoder = f"beit_{size}_patch16_224"
    return Variant(
        MaskedImageModeling,
        {"encoder": encoder, "encoder_options": {"shared_bias": True}},
        "transformers BeitForMaskedImageModeling",
        paper="Bao et al. 2021, https://arxiv.org/abs/2106.08254",
        classifier=("lm_head",),
        first="encoder.patch_embed.proj",
        convert=convert,
        resize=beit.resize,
    )


VARIANTS = {f"beit_{size}_patch16_224_mim": _beit(size) for size in ("base", "large")}
