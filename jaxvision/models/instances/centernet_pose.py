"""CenterNet for key points: Zhou et al., Objects as Points, 2019, section 5.2.

https://arxiv.org/abs/1904.07850. An object's centre says where its key points are, and heat maps of
their own where they are exactly: each key point goes to the nearest maximum inside the object's
box, if one is near. Reference: mmdetection's CenterNet with the heads, losses and rules of the
authors' code, written anew in tests/parity/detectors/centernet.py.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.losses.detection import gaussian_focal
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.centernet import ENCODERS, PRIOR, CenterNet, Centres, variant
from jaxvision.models.detection.targets import Boxes, Targets, learnable_keypoints
from jaxvision.ops.spots import local_maxima, spots

_PEAKS = 100  # of each key point's heat map that are looked at
_SURE = 0.1  # of a peak
_NEAR = 0.3  # of the longer side of an object's box, from where its centre expects the point


class CenterNetPose(CenterNet):
    """Boxes and key points; see `CenterNet` and docs/detection.md.

    It gives `keypoints` [b, d, k, 3] too: x and y in pixels of the image, and the height of the
    peak; 0 where the centre's guess stands. Targets are `keypoints` [b, n, k, 3] too, (x, y,
    visible).

    Attributes, beside those of `CenterNet`:
      keypoints: of an object.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("keypoints",)

    num_classes: int = 1
    keypoints: int = 17

    def stages(self, image: Float[Array, "b h w c"]) -> dict[str, Array]:
        """As `CenterNet.stages`, and `heat/key point 0`, ..., of each key point."""
        outputs = self.heads(image)
        heat = {"centres": outputs["heatmap"].max(-1)}
        heat |= {f"key point {k}": outputs["hm_hp"][..., k] for k in range(self.keypoints)}
        return {f"heat/{name}": jax.nn.sigmoid(x) for name, x in heat.items()}

    def _outputs(self) -> dict[str, tuple[int, float]]:
        more = {"hps": (2 * self.keypoints, 0.0), "hm_hp": (self.keypoints, -PRIOR)}
        return {**super()._outputs(), **more, "hp_offset": (2, 0.0)}

    def _losses(
        self,
        outputs: dict[str, Array],
        truth: Boxes,
        centres: Centres,
        targets: Targets,
        scale: Float[Array, "2"],
    ) -> dict[str, Ratio]:
        points = learnable_keypoints(self, targets)
        heatmap = outputs["hm_hp"]
        rows, columns = heatmap.shape[1:3]
        place = points[..., :2] * scale
        cell = jnp.floor(place).astype(jnp.int32)
        inside = ((cell >= 0) & (cell < jnp.array([columns, rows]))).all(-1)
        known = inside & (points[..., 2] > 0) & centres.there[..., None]
        cell = jnp.where(known[..., None], cell, 0)
        batch, objects, count = known.shape
        flat = lambda x: x.reshape(batch, objects * count, *x.shape[3:])  # noqa: E731
        channel = jnp.broadcast_to(jnp.arange(count), known.shape)
        radius = jnp.broadcast_to(centres.radius[..., None], known.shape)
        wanted = spots(flat(cell), flat(radius), flat(channel), flat(known), heatmap.shape[1:])
        peaks = jnp.maximum((wanted == 1).sum(), 1).astype(heatmap.dtype)
        valid = truth.rows[:, None, None, None]
        entropy = jnp.where(valid, gaussian_focal(heatmap, wanted), 0).sum()
        guess = centres.at(outputs["hps"]).reshape(*known.shape, 2)
        away = jnp.abs(guess - (place - centres.cell[:, :, None])).sum(-1)
        shift = jax.vmap(lambda x, at: x[at[..., 1], at[..., 0]])(outputs["hp_offset"], cell)
        off = jnp.abs(shift - (place - cell)).sum(-1)
        number = 2 * known.sum().astype(away.dtype)
        return {
            **super()._losses(outputs, truth, centres, targets, scale),
            "loss_hps": Ratio(jnp.where(known, away, 0).sum(), number),
            "loss_hm_hp": Ratio(entropy, peaks),
            "loss_hp_offset": Ratio(jnp.where(known, off, 0).sum(), number),
        }

    def _more_found(
        self,
        outputs: dict[str, Array],
        found: dict[str, Array],
        place: Int[Array, "b d"],
        scale: Float[Array, "2"],
    ) -> dict[str, Array]:
        columns = outputs["heatmap"].shape[2]
        cell = jnp.stack([place % columns, place // columns], -1)
        batch, count = place.shape
        hps = outputs["hps"].reshape(batch, -1, 2 * self.keypoints)
        guess = jnp.take_along_axis(hps, place[..., None], 1).reshape(batch, count, -1, 2)
        guess += cell[:, :, None]
        peaks, heights = self._peaks(outputs)
        away = jnp.linalg.norm(guess[:, :, :, None] - peaks[:, None], axis=-1)
        away = jnp.where(heights[:, None] > _SURE, away, jnp.inf)
        nearest = away.argmin(-1)  # [b, d, k]
        distance = jnp.take_along_axis(away, nearest[..., None], -1)[..., 0]
        by_point = nearest.swapaxes(1, 2)  # [b, k, d]
        peak = jnp.take_along_axis(peaks, by_point[..., None], 2).swapaxes(1, 2)
        height = jnp.take_along_axis(heights, by_point, 2).swapaxes(1, 2)
        box = found["boxes"] * jnp.tile(scale, 2)
        low, high = box[:, :, None, :2], box[:, :, None, 2:]
        taken = ((peak >= low) & (peak <= high)).all(-1)
        taken &= distance <= _NEAR * (high - low).max(-1)
        points = jnp.where(taken[..., None], peak, guess) / scale
        points = jnp.concatenate([points, jnp.where(taken, height, 0)[..., None]], -1)
        return {"keypoints": jnp.where(found["valid"][..., None, None], points, 0)}

    def _peaks(
        self, outputs: dict[str, Array]
    ) -> tuple[Float[Array, "b k m 2"], Float[Array, "b k m"]]:
        """(places in cells, heights) of the highest maxima of each heat map."""
        maxima = local_maxima(jax.nn.sigmoid(outputs["hm_hp"]))
        batch, rows, columns, count = maxima.shape
        flat = jnp.moveaxis(maxima, -1, 1).reshape(batch, count, -1)
        heights, index = lax.top_k(flat, min(_PEAKS, rows * columns))
        offsets = outputs["hp_offset"].reshape(batch, 1, -1, 2)
        offset = jnp.take_along_axis(offsets, index[..., None], 2)
        return jnp.stack([index % columns, index // columns], -1) + offset, heights


VARIANTS = {
    f"centernet_pose_{encoder}": variant(
        CenterNetPose, encoder, f"mmdet CenterNet({encoder}) with the heads of multi_pose"
    )
    for encoder in ENCODERS
}
