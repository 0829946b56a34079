"""CenterNet: objects are points, the maxima of a heat map of their centres.

Zhou, Wang, Krähenbühl, Objects as Points, 2019, https://arxiv.org/abs/1904.07850. Reference:
mmdetection's, with plain convolutions where the paper has deformable ones.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d, he_normal
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import by_stride
from jaxvision.losses.detection import gaussian_focal
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.targets import Boxes, Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.spots import local_maxima, spot_radius, spots

_LEAST_OVERLAP = 0.3  # of a box whose centre is at a spot's edge with the true one
PRIOR = 2.19  # the logit of a probability of 0.1


class Head(nn.Module):
    """A 3x3 and a 1x1 convolution.

    Attributes:
      features: channels put out.
      width: channels between.
      bias: what the output starts at.
      small: whether it starts near that everywhere.
      dtype: what is computed in.
    """

    features: int
    width: int = 64
    bias: float = 0.0
    small: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        x = nn.relu(Conv2d(self.width, dtype=self.dtype, name="0")(x))
        last = Conv2d(
            self.features,
            1,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.001) if self.small else he_normal,
            bias_init=nn.initializers.constant(self.bias),
            name="2",
        )
        return accumulable(last(x))


class Centres(NamedTuple):
    """Where the objects to learn are on the map.

    Attributes:
      cell: (column, row) of each.
      offset: from the cell's corner to the centre, in cells.
      size: width and height, in cells.
      radius: of the spot around it, in cells.
      there: which are objects.
      last: which are not covered by a later object in their cell.
    """

    cell: Int[Array, "b g 2"]
    offset: Float[Array, "b g 2"]
    size: Float[Array, "b g 2"]
    radius: Int[Array, "b g"]
    there: Bool[Array, "b g"]
    last: Bool[Array, "b g"]

    @classmethod
    def of(cls, truth: Boxes, scale: Float[Array, "2"], shape: tuple[int, int]) -> "Centres":
        """Those of boxes, times `scale`, on a map of (rows, columns)."""
        low, high = truth.boxes[..., :2] * scale, truth.boxes[..., 2:] * scale
        centre, size = (low + high) / 2, high - low
        limit = jnp.array([shape[1] - 1, shape[0] - 1])
        cell = jnp.clip(centre.astype(jnp.int32), 0, limit)
        same = (cell[:, :, None] == cell[:, None]).all(-1) & truth.valid[:, None]
        later = jnp.triu(jnp.ones(same.shape[1:], bool), 1)
        return cls(
            cell,
            centre - cell,
            size,
            spot_radius(size, _LEAST_OVERLAP),
            truth.valid,
            truth.valid & ~(same & later).any(-1),
        )

    def at(self, x: Float[Array, "b h w c"]) -> Float[Array, "b g c"]:
        """What a map has at the objects' cells."""
        return jax.vmap(lambda x, cell: x[cell[:, 1], cell[:, 0]])(x, self.cell)


class CenterNet(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives. Nothing is suppressed.

    Attributes:
      num_classes: of objects.
      encoder: a backbone; its coarsest map is enlarged.
      upsampling: channels of the transposed convolutions, each of which doubles rows and columns;
        with none the heads stand on the encoder's finest map.
      head_width: channels of each head's convolution.
      score_threshold, max_detections: objects with a higher score, at most so many.
      dtype: what is computed in; boxes and losses are in float32.
    """

    ENDS: ClassVar[tuple[str, ...]] = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 80
    encoder: Any = None
    upsampling: tuple[int, ...] = (256, 128, 64)
    head_width: int = 64
    score_threshold: float = 0.0
    max_detections: int = 100
    dtype: Any = None

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detections, or losses in training.

        Args:
          image: the batch.
          train: whether targets are learnt from.
          targets: see docs/detection.md.

        Raises:
          UserError: training has no targets.
        """
        size = jnp.array(image.shape[2:0:-1])
        outputs = self.heads(image, train)
        rows, columns = outputs["heatmap"].shape[1:3]
        scale = jnp.array([columns, rows]) / size
        if train:
            truth = learnable(targets)
            centres = Centres.of(truth, scale, (rows, columns))
            return self._losses(outputs, truth, centres, targets or {}, scale)
        found, place = self._found(outputs, scale)
        return {**found, **self._more_found(outputs, found, place, scale)}

    @nn.compact
    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """`heatmap` [b, i, j, k], logits; `wh` and `offset` [b, i, j, 2], in cells."""
        maps = by_stride(self.encoder, image, self.encoder(image, train))
        if self.upsampling:
            x = maps[max(maps)]
            for index, width in enumerate(self.upsampling):
                for place in (2 * index, 2 * index + 1):
                    name = f"neck.deconv_layers.{place}"
                    common: dict[str, Any] = {"use_bias": False, "dtype": self.dtype}
                    common["name"] = f"{name}.conv"
                    if place % 2:
                        x = ConvTranspose2d(width, 4, 2, padding=1, **common)(x)
                    else:
                        x = Conv2d(width, **common)(x)
                    x = nn.relu(BatchNorm(dtype=self.dtype, name=f"{name}.bn")(x, train))
        else:
            x = maps[min(maps)]
        heads = {}
        for name, (features, bias) in self._outputs().items():
            # Heat maps start at their bias, what is regressed near nothing.
            head = Head(
                features,
                self.head_width,
                bias,
                not bias,
                self.dtype,
                name=f"bbox_head.{name}_head",
            )
            heads[name] = head(x)
        return heads

    def stages(self, image: Float[Array, "b h w c"]) -> dict[str, Array]:
        """What is seen on the way: `heat/centres` [b, i, j], 0 to 1, of any class."""
        return {"heat/centres": jax.nn.sigmoid(self.heads(image)["heatmap"].max(-1))}

    def _outputs(self) -> dict[str, tuple[int, float]]:
        """(channels, what they start at) of each head."""
        return {"heatmap": (self.num_classes, -PRIOR), "wh": (2, 0.0), "offset": (2, 0.0)}

    def _losses(
        self,
        outputs: dict[str, Array],
        truth: Boxes,
        centres: Centres,
        targets: Targets,
        scale: Float[Array, "2"],
    ) -> dict[str, Ratio]:
        heatmap = outputs["heatmap"]
        wanted = spots(centres.cell, centres.radius, truth.labels, centres.there, heatmap.shape[1:])
        count = jnp.maximum((wanted == 1).sum(), 1).astype(heatmap.dtype)
        rows = truth.rows[:, None, None, None]
        entropy = jnp.where(rows, gaussian_focal(heatmap, wanted), 0).sum()

        def distance(found: Array, wanted: Array) -> Ratio:
            error = jnp.abs(centres.at(found) - wanted).sum(-1)
            return Ratio(jnp.where(centres.last, error, 0).sum() / 2, count)

        return {
            "loss_center_heatmap": Ratio(entropy, count),
            "loss_wh": distance(outputs["wh"], centres.size).scaled(0.1),
            "loss_offset": distance(outputs["offset"], centres.offset),
        }

    def _found(
        self, outputs: dict[str, Array], scale: Float[Array, "2"]
    ) -> tuple[dict[str, Array], Int[Array, "b d"]]:
        """Detections, and the place of each on the map, row by row."""
        scores = local_maxima(jax.nn.sigmoid(outputs["heatmap"]))
        batch, _, columns, classes = scores.shape
        flat = scores.reshape(batch, -1)
        best, index = lax.top_k(flat, min(self.max_detections, flat.shape[1]))
        place = index // classes
        take = lambda x: jnp.take_along_axis(x.reshape(batch, -1, 2), place[..., None], 1)  # noqa: E731
        cell = jnp.stack([place % columns, place // columns], -1)
        centre, half = cell + take(outputs["offset"]), take(outputs["wh"]) / 2
        boxes = jnp.concatenate([centre - half, centre + half], -1) / jnp.tile(scale, 2)
        valid = best > self.score_threshold
        found = {
            "boxes": jnp.where(valid[..., None], boxes, 0),
            "scores": jnp.where(valid, best, 0),
            "labels": jnp.where(valid, index % classes, 0).astype(jnp.int32),
            "valid": valid,
        }
        return found, place

    def _more_found(
        self,
        outputs: dict[str, Array],
        found: dict[str, Array],
        place: Int[Array, "b d"],
        scale: Float[Array, "2"],
    ) -> dict[str, Array]:
        """What heads beside those of boxes say of the detections."""
        return {}


def variant(module: type[CenterNet], encoder: str, reference: str) -> Variant:
    """Of a kind of CenterNet on an encoder; hourglasses need no enlarging."""
    hourglass = encoder.startswith("hourglass")
    return Variant(
        module,
        {"encoder": encoder, **({"upsampling": ()} if hourglass else {})},
        reference,
        (512, 512, 3),
        "Zhou et al. 2019, https://arxiv.org/abs/1904.07850",
        classifier=("bbox_head.heatmap_head.2",),
        first="backbone.conv1",
    )


ENCODERS = ("resnet18", "resnet50", "hourglass2")
VARIANTS = {
    f"centernet_{encoder}": variant(
        CenterNet, encoder, f"mmdet CenterNet({encoder}, CTResNetNeck(use_dcn=False))"
    )
    for encoder in ENCODERS
}
