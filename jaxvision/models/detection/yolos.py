"""YOLOS: Fang et al., You Only Look at One Sequence, 2021, https://arxiv.org/abs/2106.00666.

A ViT with learned tokens behind the patches, one for each object, trained as DETR is. Reference:
transformers' `YolosForObjectDetection`; blocks have timm's names, and `convert` and `export` bring
one to the other. Published weights have COCO's ids as 91 classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from jaxvision.layers.blocks import drop_path_rates
from jaxvision.layers.intermediates import intermediates
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.parameters import parameter
from jaxvision.layers.patches import patch_grid
from jaxvision.layers.positions import Grid, stored_grid
from jaxvision.layers.transformer import PatchEmbed, TransformerBlock
from jaxvision.models.detection.detr import Predictor, SetDetector
from jaxvision.models.transformers_names import TO_TIMM, join_attention
from jaxvision.models.variant import Variant
from jaxvision.ops.resize import resize_matrix
from jaxvision.state_dict import StateDict, renamed

_normal = nn.initializers.truncated_normal(0.02)
_EPSILON = 1e-12


class Yolos(SetDetector):
    """The detector. The image's sides must be multiples of the patch's.

    Attributes, beside those of `SetDetector`:
      patch_size: side of a patch.
      width: channels of a token.
      depth: how many blocks.
      num_heads: attention heads of a block.
      queries: tokens for objects.
      middle_positions: whether positions are added behind each block but the last, too.
      grid: rows and columns of patches that the learned positions are of; without it those of the
        image at initialisation, and where they must be resampled, a square.
      dropout: rate in the embedding and the projections.
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
    """

    patch_size: int = 16
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    queries: int = 100
    middle_positions: bool = True
    grid: Grid | None = None
    dropout: float = 0.0
    drop_path: float = 0.0

    def _positions(self, name: str, layers: tuple[int, ...], grid: Grid) -> Array:
        """Learned ones of all tokens, [*layers, n, c], bicubically resampled to the grid."""
        rows, columns = self.grid or grid
        shape = (*layers, 1 + rows * columns + self.queries, self.width)
        if self.has_variable("params", name):
            shape = self.get_variable("params", name).shape
        positions = jnp.asarray(parameter(self, name, _normal, shape))
        old = stored_grid(shape[-2] - 1 - self.queries, grid, self.grid)
        if old == grid:
            return positions
        token, patches, objects = jnp.split(positions, (1, shape[-2] - self.queries), -2)
        down, across = (jnp.asarray(resize_matrix(a, b, "bicubic")) for a, b in zip(old, grid))
        places = patches.reshape(*layers, *old, self.width)
        places = jnp.einsum(
            "ih,jw,...hwc->...ijc", down, across, places, precision=lax.Precision.HIGHEST
        )
        return jnp.concatenate([token, places.reshape(*layers, -1, self.width), objects], -2)

    @nn.compact
    def heads(
        self, image: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "1 b q k"], Float[Array, "1 b q 4"]]:
        """Logits of the classes, the last of which is no object, and boxes; see `Detr.heads`."""
        grid = patch_grid(image.shape, self.patch_size)
        patches = PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="patch_embed")
        x = patches(image)
        token, objects = (
            parameter(self, name, _normal, (1, count, self.width)).astype(x.dtype)
            for name, count in (("cls_token", 1), ("det_token", self.queries))
        )
        token, objects = (jnp.tile(part, (x.shape[0], 1, 1)) for part in (token, objects))
        x = jnp.concatenate([token, x, objects], 1)
        x += self._positions("pos_embed", (1,), grid).astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        middle = None
        if self.middle_positions:
            layers = (self.depth - 1, 1)
            middle = self._positions("mid_pos_embed", layers, grid).astype(x.dtype)
        for index, rate in enumerate(drop_path_rates(self.depth, self.drop_path)):
            block = TransformerBlock(
                self.num_heads,
                out_dropout=self.dropout,
                drop_path=rate,
                epsilon=_EPSILON,
                dtype=self.dtype,
                name=f"blocks_{index}",
            )
            x = block(x, train)
            if middle is not None and index < self.depth - 1:
                x += middle[index]
        x = LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="norm")(x)[None, :, -self.queries :]
        outputs = ("class_labels_classifier", self.num_classes + 1), ("bbox_predictor", 4)
        logits, boxes = (
            Predictor(features, dtype=self.dtype, name=name)(x).astype(jnp.float32)
            for name, features in outputs
        )
        return logits, jax.nn.sigmoid(boxes)

    def query_attention(self, variables: Any, image: Array) -> Float[Array, "b q i j"]:
        """Tokens attend to each other as well, so that a query's sum is below one."""
        found = self._attention(variables, image)[:, -self.queries :]
        return found.reshape(*found.shape[:2], *patch_grid(image.shape, self.patch_size))

    def place_attention(self, variables: Any, image: Array) -> Float[Array, "b i j i j"]:
        grid = patch_grid(image.shape, self.patch_size)
        found = self._attention(variables, image)[:, 1 : -self.queries]
        return found.reshape(len(found), *grid, *grid)

    def _attention(self, variables: Any, image: Array) -> Float[Array, "b n p"]:
        """Of all tokens, over the patches."""
        found = intermediates(self, variables, image, ("attention",))["attention"][-1]
        return found.mean(1)[..., 1 : -self.queries]


# To ours, in this order: names of transformers, then of the authors' code.
_TO_OURS = (
    (r"^(?:vit|backbone)\.", ""),
    *TO_TIMM,
    (r"^embeddings\.detection_tokens$", "det_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^encoder\.(?:interpolation\.)?mid_position_embeddings$", "mid_pos_embed"),
    (r"^layernorm\.", "norm."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
)
_FROM_OURS = (
    (r"^patch_embed\.proj\.", "vit.embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "vit.embeddings.cls_token"),
    (r"^det_token$", "vit.embeddings.detection_tokens"),
    (r"^pos_embed$", "vit.embeddings.position_embeddings"),
    (r"^mid_pos_embed$", "vit.encoder.interpolation.mid_position_embeddings"),
    (r"^norm\.", "vit.layernorm."),
    (r"^blocks\.", "vit.encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def convert(state: StateDict) -> StateDict:
    """State_dicts of transformers and of the authors' code by our names; others unchanged."""
    return join_attention(renamed(state, _TO_OURS))


def export(state: StateDict) -> StateDict:
    """A state_dict of ours by the names of transformers 5; the inverse of `convert`."""
    found: StateDict = {}
    for name, value in state.items():
        place, joined, leaf = name.partition(".attn.qkv.")
        if joined:
            for part, third in zip(("query", "key", "value"), np.split(value, 3)):
                found[f"{place}.attention.attention.{part}.{leaf}"] = third
        else:
            found[name] = value
    return renamed(found, _FROM_OURS)


def _variant(size: str, width: int, heads: int, grid: Grid, **options: Any) -> Variant:
    return Variant(
        Yolos,
        {"width": width, "num_heads": heads, "grid": grid, **options},
        f"transformers YolosForObjectDetection, {size}",
        (16 * grid[0], 16 * grid[1], 3),
        "Fang et al. 2021, https://arxiv.org/abs/2106.00666",
        classifier=("class_labels_classifier.layers.2",),
        first="patch_embed.proj",
        convert=convert,
        export=export,
    )


VARIANTS = {
    "yolos_tiny": _variant("tiny", 192, 3, (50, 83), middle_positions=False),
    "yolos_small": _variant("small", 384, 6, (32, 54)),
    "yolos_base": _variant("base", 768, 12, (50, 84)),
}
