"""DETR: Carion et al., End-to-End Object Detection with Transformers, 2020.

https://arxiv.org/abs/2005.12872. Reference: transformers' `DetrForObjectDetection`, but for three
things: dropout is also between the two layers of an MLP, as in the authors' code; what the next
layer of the decoder sees is not normalised where auxiliary losses are asked for, again as there;
and batches are whole images of one size, so no place of a map is masked.

Published weights hold batch norms that were never trained: fine-tune them with
`optimizer.freeze_statistics` and `optimizer.freeze` of `encoder/.*bn`. Their 91 classes are COCO's
ids.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.intermediates import intermediates
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import LayerNorm
from jaxvision.layers.positions import sine_positions
from jaxvision.layers.transformer import CrossAttention, Mlp
from jaxvision.losses import Ratio
from jaxvision.losses.set_prediction import set_losses
from jaxvision.models.detection.targets import Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.boxes import clip, from_centers, to_centers
from jaxvision.state_dict import StateDict, renamed

_xavier = nn.initializers.xavier_uniform()


class _Layer(nn.Module):
    """What layers of both kinds share: each part is a residual branch, with a norm behind it.

    Attributes:
      num_heads: of the attention.
      hidden: channels within the MLP.
      dropout: rate of dropout on the branches and within the MLP.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    num_heads: int
    hidden: int
    dropout: float = 0.0
    dtype: Any = None

    def attention(self, name: str, recorded: str = "") -> CrossAttention:
        return CrossAttention(self.num_heads, recorded, self.dtype, name=name)

    def add(self, x: Array, branch: Array, train: bool, norm: str) -> Array:
        branch = nn.Dropout(self.dropout, deterministic=not train)(branch)
        return LayerNorm(epsilon=1e-5, dtype=self.dtype, name=norm)(x + branch)

    def add_mlp(self, x: Array, train: bool) -> Array:
        mlp = Mlp(self.hidden, nn.relu, self.dropout, self.dtype, _xavier, name="mlp")
        return LayerNorm(epsilon=1e-5, dtype=self.dtype, name="final_layer_norm")(x + mlp(x, train))


class EncoderLayer(_Layer):
    """Self-attention of the places of a map, and an MLP."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], places: Float[Array, "n c"], train: bool
    ) -> Float[Array, "b n c"]:
        placed = x + places
        y = self.attention("self_attn", "self_attention")(placed, placed, x)
        return self.add_mlp(self.add(x, y, train, "self_attn_layer_norm"), train)


class DecoderLayer(_Layer):
    """Self-attention of the queries, their attention to the map, and an MLP."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q c"],
        queries: Float[Array, "q c"],
        memory: Float[Array, "b n c"],
        places: Float[Array, "n c"],
        train: bool,
    ) -> Float[Array, "b q c"]:
        placed = x + queries
        y = self.attention("self_attn")(placed, placed, x)
        x = self.add(x, y, train, "self_attn_layer_norm")
        attention = self.attention("encoder_attn", "attention")
        y = attention(x + queries, memory + places, memory)
        return self.add_mlp(self.add(x, y, train, "encoder_attn_layer_norm"), train)


class Transformer(nn.Module):
    """A map to the queries' vectors, [layer, b, q, c]: of each layer of the decoder, normalised.

    Attributes: see `Detr`.
    """

    width: int
    num_heads: int
    hidden: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, features: Float[Array, "b h w d"], train: bool) -> Float[Array, "l b q c"]:
        x = Conv2d(self.width, 1, dtype=self.dtype, name="input_projection")(features)
        places = jnp.asarray(sine_positions((x.shape[1], x.shape[2]), self.width), x.dtype)
        embed = nn.Embed(
            self.queries,
            self.width,
            embedding_init=nn.initializers.normal(1.0),
            name="query_position_embeddings",
        )
        queries = embed.embedding.astype(x.dtype)
        layer = (self.num_heads, self.hidden, self.dropout, self.dtype)
        memory = x.reshape(x.shape[0], -1, self.width)
        for index in range(self.encoder_layers):
            memory = EncoderLayer(*layer, name=f"encoder.layers_{index}")(memory, places, train)
        norm = LayerNorm(epsilon=1e-5, dtype=self.dtype, name="decoder.layernorm")
        x, found = jnp.zeros((len(memory), *queries.shape), memory.dtype), []
        for index in range(self.decoder_layers):
            one = DecoderLayer(*layer, name=f"decoder.layers_{index}")
            x = one(x, queries, memory, places, train)
            found.append(norm(x))
        return jnp.stack(found)


class Predictor(nn.Module):
    """Three dense layers with ReLU between them, `layers_0` to `layers_2`.

    Attributes:
      features: channels of the output; within there are those of the input.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        for index in range(2):
            x = nn.relu(Dense(x.shape[-1], dtype=self.dtype, name=f"layers_{index}")(x))
        return Dense(self.features, dtype=self.dtype, name="layers_2")(x)


class SetDetector(nn.Module):
    """A detector whose queries each see one object or none; it is trained by the set loss.

    It has a method `heads`, see `Detr.heads`; docs/detection.md says what it is given and gives.
    What its last layer attends to, the mean over the heads, are the methods `query_attention`, of
    each query over the places of the map [b, q, i, j], and `place_attention`, of each place over
    all of them [b, i, j, i, j]. They are functions of variables and normalised images.

    Attributes:
      no_object: weight of queries without an object in the loss of the classes.
      score_threshold: objects need a higher score.
      max_detections: objects given of an image, at most one a query.
    """

    ENDS = ("classes",)

    num_classes: int = 91
    no_object: float = 0.1
    score_threshold: float = 0.0
    max_detections: int = 100
    dtype: Any = None

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        logits, boxes = self.heads(image, train)
        size = image.shape[1:3]
        if train:
            return losses(logits, boxes, targets, size, self.no_object)
        return best(
            logits[-1],
            boxes[-1],
            size,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )


class Detr(SetDetector):
    """The detector.

    As `attention` each layer of the decoder records what its queries attend to on the encoder's
    last map, [b, heads, queries, rows * columns]; those of the transformer's encoder record what
    places attend to, as `self_attention`.

    Attributes, beside those of `SetDetector`:
      encoder: the backbone; its last map is used.
      width: channels of the transformer.
      num_heads: attention heads of a layer.
      hidden: channels within its MLP.
      encoder_layers, decoder_layers: how many of each.
      queries: objects that an image may have.
      dropout: rate, in the transformer.
      auxiliary: whether all layers of the decoder are trained to find the objects, not the last
        alone.
    """

    encoder: Any = None
    width: int = 256
    num_heads: int = 8
    hidden: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 100
    dropout: float = 0.1
    auxiliary: bool = True

    @nn.compact
    def heads(
        self, image: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "l b q k"], Float[Array, "l b q 4"]]:
        """Logits of the classes, the last of which is no object, and boxes; see `set_losses`.

        They are those of the decoder's last layer, in training of all that are trained.
        """
        features = self.encoder(image, train)[-1]
        x = Transformer(
            self.width,
            self.num_heads,
            self.hidden,
            self.encoder_layers,
            self.decoder_layers,
            self.queries,
            self.dropout,
            self.dtype,
            name="model",
        )(features, train)
        x = x if train and self.auxiliary else x[-1:]
        classifier = Dense(self.num_classes + 1, dtype=self.dtype, name="class_labels_classifier")
        locate = Predictor(4, dtype=self.dtype, name="bbox_predictor")
        return classifier(x).astype(jnp.float32), jax.nn.sigmoid(locate(x).astype(jnp.float32))

    def query_attention(self, variables: Any, image: Array) -> Float[Array, "b q i j"]:
        found = intermediates(self, variables, image, ("attention",))["attention"][-1].mean(1)
        return found.reshape(*found.shape[:2], *self._map_size(variables, image))

    def place_attention(self, variables: Any, image: Array) -> Float[Array, "b i j i j"]:
        name, size = "self_attention", self._map_size(variables, image)
        found = intermediates(self, variables, image, (name,))[name][-1].mean(1)
        return found.reshape(len(found), *size, *size)

    def _map_size(self, variables: Any, image: Array) -> tuple[int, int]:
        def last(network: Detr, image: Array) -> Array:
            return network.encoder(image, False)[-1]

        features = jax.eval_shape(lambda: self.apply(variables, image, method=last))
        return features.shape[1], features.shape[2]


def of_best_objects(
    network: SetDetector, variables: Any, image: Float[Array, "b h w c"], count: int
) -> dict[str, Array]:
    """What the network finds, at most `count` objects, and as `attention` [b, n, i, j] where their
    queries look."""
    heads: Any = network.apply(variables, image, False, method="heads")
    logits, boxes = heads
    number = min(count, network.max_detections, logits.shape[2])
    found = best(
        logits[-1],
        boxes[-1],
        image.shape[1:3],
        score_threshold=network.score_threshold,
        max_detections=number,
    )
    maps = network.query_attention(variables, image)
    _, order = jax.lax.top_k(jax.nn.softmax(logits[-1])[..., :-1].max(-1), number)
    return {**found, "attention": jnp.take_along_axis(maps, order[..., None, None], 1)}


def _sides(size: Sequence[int]) -> Float[Array, " 4"]:
    return jnp.array([size[1], size[0]] * 2, jnp.float32)


def losses(
    logits: Float[Array, "l b q k"],
    boxes: Float[Array, "l b q 4"],
    targets: Targets | None,
    size: Sequence[int],
    no_object: float,
) -> dict[str, Ratio]:
    """`ce`, `bbox` and `giou` (see `set_losses`) of the last layer; `ce_0` ... of those before.

    Args:
      logits, boxes: see `Detr.heads`.
      targets: the objects, in pixels.
      size: (height, width) of the image.
      no_object: see `SetDetector`.
    """
    objects = learnable(targets)
    truth = to_centers(objects.boxes / _sides(size))

    def of_layer(logits: Array, boxes: Array) -> dict[str, Ratio]:
        return set_losses(
            logits, boxes, objects.labels, truth, objects.valid, objects.rows, no_object
        )

    by_layer, last = jax.vmap(of_layer)(logits, boxes), len(logits) - 1
    return {
        name if layer == last else f"{name}_{layer}": Ratio(mean.total[layer], mean.weight[layer])
        for layer in range(last + 1)
        for name, mean in by_layer.items()
    }


def best(
    logits: Float[Array, "b q k"],
    boxes: Float[Array, "b q 4"],
    size: Sequence[int],
    *,
    score_threshold: float,
    max_detections: int,
) -> dict[str, Array]:
    """The best class of each query, from the highest score on; nothing is suppressed.

    Args:
      logits: of the classes, the last of which is no object.
      boxes: (centre x, centre y, width, height) in parts of the image's sides.
      size: (height, width) of the image.
      score_threshold: objects need a higher score.
      max_detections: how many, at most one a query.

    Returns:
      `boxes` (x0, y0, x1, y1) in pixels, `scores`, `labels`, all 0 where not `valid`.
    """
    likelihood = jax.nn.softmax(logits)[..., :-1]
    scores, order = jax.lax.top_k(likelihood.max(-1), min(max_detections, logits.shape[1]))
    labels = jnp.take_along_axis(likelihood.argmax(-1), order, 1)
    corners = clip(from_centers(boxes) * _sides(size), size[0], size[1])
    valid = scores > score_threshold
    return {
        "boxes": jnp.where(
            valid[..., None], jnp.take_along_axis(corners, order[..., None], 1), 0.0
        ),
        "scores": jnp.where(valid, scores, 0.0),
        "labels": jnp.where(valid, labels, 0).astype(jnp.int32),
        "valid": valid,
    }


# To ours, in this order: names of transformers' files and modules, then of the authors' files.
_TO_OURS = (
    (r"^model\.backbone\.(?:conv_encoder\.)?model\.", "encoder."),
    (r"^backbone\.0\.body\.", "encoder."),
    (r"^transformer\.", "model."),
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
    (r"^model\.decoder\.norm\.", "model.decoder.layernorm."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"\.out_proj\.", ".o_proj."),
    (r"^(model\.\w+\.layers\.\d+)\.(?:fc|linear)(\d)\.", r"\1.mlp.fc\2."),
    (r"^(model\.\w+\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(model\.encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"^(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    # transformers' own ResNet.
    (r"^encoder\.embedder\.embedder\.convolution\.", "encoder.conv1."),
    (r"^encoder\.embedder\.embedder\.normalization\.", "encoder.bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)
_RESNET = re.compile(
    r"^encoder\.encoder\.stages\.(\d)\.layers\.(\d+)\.(?:layer\.(\d)\.(convolution|normalization))?"
)


def _torchvision(found: re.Match[str]) -> str:
    """A place in transformers' ResNet by torchvision's name; those count from 0, these from 1."""
    stage, block, layer, kind = found.groups()
    place = f"encoder.layer{int(stage) + 1}.{block}."
    if layer is None:
        return place
    return place + {"convolution": "conv", "normalization": "bn"}[kind] + str(int(layer) + 1)


def convert(state: StateDict) -> StateDict:
    """State_dicts of transformers and of the authors' code by our names; others unchanged."""
    found = {
        _RESNET.sub(_torchvision, name): value for name, value in renamed(state, _TO_OURS).items()
    }
    for name in [name for name in found if ".in_proj_" in name]:
        place, leaf = name.split(".in_proj_")
        for part, third in zip("qkv", np.split(found.pop(name), 3)):
            found[f"{place}.{part}_proj.{leaf}"] = third
    return found


def export(state: StateDict) -> StateDict:
    """A state_dict of ours by transformers' names, whose batch norms count no batches."""
    kept = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    return renamed(kept, ((r"^encoder\.", "model.backbone.model."),))


def _variant(encoder: str, form: str = "", **options: Any) -> Variant:
    return Variant(
        Detr,
        {"encoder": encoder, **options},
        f"transformers DetrForObjectDetection, {encoder}{form}",
        (800, 1333, 3),
        "Carion et al. 2020, https://arxiv.org/abs/2005.12872",
        classifier=("class_labels_classifier",),
        first="encoder.conv1",
        convert=convert,
        export=export,
    )


VARIANTS = {
    **{f"detr_{encoder}": _variant(encoder) for encoder in ("resnet50", "resnet101")},
    **{
        f"detr_{encoder}_dc5": _variant(
            encoder, " with stride 16", encoder_options={"output_stride": 16}
        )
        for encoder in ("resnet50", "resnet101")
    },
}
