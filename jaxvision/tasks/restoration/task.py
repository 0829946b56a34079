"""Super-resolution: Ledig et al. 2017, https://arxiv.org/abs/1609.04802.

Batches hold large images; the small ones that the network is given are made of them on the device
by Pillow's bicubic filter, bit for bit. SRResNet learns from the difference of pixels. SRGAN learns
from that of a trained network's maps, and from a discriminator, which a step updates first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision import models, pretrained
from jaxvision.data.augment import normalize, to_float
from jaxvision.errors import UserError
from jaxvision.inspect.features import taps
from jaxvision.metrics import Mean
from jaxvision.metrics.images import psnr, ssim
from jaxvision.ops.resize import resize_pixels
from jaxvision.tasks import base, networks
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.lpips import Lpips
from jaxvision.tasks.sampling import as_pixels

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PERCEPTUAL = "perceptual"  # the collection of the trained network
_LPIPS = "lpips"  # and of that which evaluation compares by
_GENERATOR, _DISCRIMINATOR = "generator", "discriminator"


@dataclass(frozen=True)
class Perceptual:
    """A trained network whose maps of two images are compared.

    Attributes:
      model: the network.
      name: of it in the registry.
      weights: that it has.
      layer: whose output is compared.
      weight: of the loss.
      mean, std: of its images.
    """

    model: nn.Module
    name: str
    weights: str
    layer: str
    weight: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def create(cls, keys: "ConfigDict") -> Self | None:
        """As configured; None where no network is named.

        Raises:
          UserError: no such network or option, or one without weights or layer.
        """
        if not keys.network:
            return None
        for key in ("weights", "layer"):
            if not keys[key]:
                raise UserError(f"restoration.perceptual.network wants perceptual.{key} too.")
        model = models.create(keys.network, **keys.options.to_dict())
        return cls(
            model, keys.network, keys.weights, keys.layer, keys.weight,
            tuple(keys.mean), tuple(keys.std),
        )  # fmt: skip

    def difference(
        self, variables: Variables, a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]
    ) -> Float[Array, ""]:
        """The mean squared difference of the maps of images in 0..1."""
        first, second = (
            taps(self.model, variables, normalize(x, self.mean, self.std), (self.layer,))
            for x in (a, b)
        )
        return jnp.mean(jnp.square(first[self.layer] - second[self.layer]))


@dataclass(frozen=True)
class Restoration(base.Task):
    """Batches carry `image`, uint8 and large, and `valid`. `predict` enlarges what it is given.

    Attributes:
      model: the network that enlarges; its `scale` says how much.
      discriminator: says which images are photographs; None where there is none.
      perceptual: compares maps; None where nothing does.
      lpips: compares images in evaluation; None where nothing does.
      loss_name: of pixels, "l1" or "mse".
      pixel_weight, adversarial_weight: of the losses.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "psnr": Metric("higher"),
        "ssim": Metric("higher"),
        "bicubic_psnr": Metric("neither"),
        "bicubic_ssim": Metric("neither"),
        "psnr_gain": Metric("higher"),
        "lpips": Metric("lower"),
        "bicubic_lpips": Metric("neither"),
        "loss": Metric("lower", fatal=True),
        "pixel_loss": Metric("lower"),
        "perceptual_loss": Metric("lower"),
        "generator_loss": Metric("neither"),
        "discriminator_loss": Metric("neither"),
        "real_probability": Metric("neither"),
        "fake_probability": Metric("neither"),
    }
    main_metric: ClassVar[str] = "psnr"
    training_collections: ClassVar[tuple[str, ...]] = (_PERCEPTUAL,)
    any_size: ClassVar[bool] = True

    model: Any
    discriminator: nn.Module | None = None
    perceptual: Perceptual | None = None
    lpips: Lpips | None = None
    inputs: Inputs = field(default_factory=lambda: Inputs((0.0,), (1.0,)))
    loss_name: str = "l1"
    pixel_weight: float = 1.0
    adversarial_weight: float = 1e-3
    class_names: tuple[str, ...] = ()

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own = config.restoration
        judge = None
        if own.discriminator:
            judge = models.create(own.discriminator, **own.discriminator_options.to_dict())
        return cls(
            model=base.create_network(config, channels=config.data.channels),
            discriminator=judge,
            perceptual=Perceptual.create(own.perceptual),
            lpips=Lpips.create(own.lpips.network) if own.lpips.network else None,
            inputs=Inputs((0.0,), (1.0,), Inputs.create(config, facts).augmentations),
            loss_name=own.loss,
            pixel_weight=own.pixel_weight,
            adversarial_weight=own.adversarial_weight,
        )

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:  # type: ignore[override]
        """One without a discriminator, as all tasks with one network have it."""
        if self.discriminator is None:
            return {"main": ()}
        return {_DISCRIMINATOR: (_DISCRIMINATOR,), _GENERATOR: (_GENERATOR,)}

    # -- variables -------------------------------------------------------------------------------

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        large = spec["image"].shape[1:]
        self._small_size(large)
        image = jnp.zeros((1, *large))
        own, of_judge, of_perceptual, of_lpips = jax.random.split(key, 4)
        each = {_GENERATOR: dict(self.model.init(own, self._small(image), train=False))}
        if self.discriminator is not None:
            each[_DISCRIMINATOR] = dict(self.discriminator.init(of_judge, image, train=False))
        both = networks.join(each)
        if self.perceptual is not None:
            both[_PERCEPTUAL] = dict(self.perceptual.model.init(of_perceptual, image, train=False))
        if self.lpips is not None:
            both[_LPIPS] = self.lpips.init(of_lpips)
        return both

    def names_weights(self, config: "ConfigDict") -> bool:
        trained = self.perceptual is not None or self.lpips is not None
        return trained or super().names_weights(config)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        """`model.weights` are those of the network that enlarges."""
        if super().names_weights(config):
            own = base.load_network(config, self.model, _of(_GENERATOR, variables), read)
            variables = networks.put(_GENERATOR, variables, own)
        if self.perceptual is not None:
            found = read(self.perceptual.weights, self.perceptual.name)
            own = pretrained.load_into(
                self.perceptual.name, self.perceptual.model, found, variables[_PERCEPTUAL]
            )
            variables = {**variables, _PERCEPTUAL: own}
        return self._with_lpips(config, variables, read)

    def _with_lpips(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        if self.lpips is None:
            return variables
        keys = config.restoration.lpips
        own = self.lpips.load(keys.weights, keys.network_weights, variables[_LPIPS], read)
        return {**variables, _LPIPS: own}

    def of_network(self, variables: Variables) -> Variables:
        return _of(_GENERATOR, variables)

    def with_weights(
        self, name: str, weights: pretrained.Weights, variables: Variables, read: base.Reader
    ) -> Variables:
        own = pretrained.load_into(name, self.model, weights, _of(_GENERATOR, variables))
        return networks.join({_GENERATOR: own})

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {_GENERATOR: _of(_GENERATOR, variables)}

    # -- small and large ---------------------------------------------------------------------------

    def _small_size(self, size: Sequence[int]) -> tuple[int, int]:
        height, width = size[:2]
        if height % self.model.scale or width % self.model.scale:
            raise UserError(
                f"Images of {height}x{width} cannot be made {self.model.scale} times smaller; crop "
                f"them to multiples of {self.model.scale} by data.*_transforms."
            )
        return height // self.model.scale, width // self.model.scale

    def _small(self, large: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        """What the network is given, of images in 0..1."""
        return to_float(resize_pixels(as_pixels(large), self._small_size(large.shape[1:])))

    def _train(self, name: str, params: Any, model_state: Any, image: jax.Array):
        """(output in training mode, new model_state) of one network."""
        network: Any = self.model if name == _GENERATOR else self.discriminator
        own = _of(name, model_state)
        output, updated = network.apply(
            {"params": params[name], **own}, image, train=True, mutable=list(own)
        )
        return output.astype(jnp.float32), networks.put(name, model_state, dict(updated))

    # -- training --------------------------------------------------------------------------------

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        large = self.inputs.train(batch, key)["image"]
        made, model_state = self._train(_GENERATOR, params, model_state, self._small(large))
        total, sums = self._content(model_state, made, large)
        return total, (model_state, {"loss": _mean(total), **sums})

    def _content(self, model_state: Any, made: jax.Array, large: jax.Array) -> tuple[Any, Sums]:
        """(loss of pixels and maps, its parts)."""
        apart = jnp.abs(made - large) if self.loss_name == "l1" else jnp.square(made - large)
        pixels = apart.mean()
        total, sums = self.pixel_weight * pixels, {"pixel_loss": _mean(pixels)}
        if self.perceptual is not None:
            maps = self.perceptual.difference(model_state[_PERCEPTUAL], made, large)
            total = total + self.perceptual.weight * maps
            sums["perceptual_loss"] = _mean(maps)
        return total, sums

    def step(self, state: Any, batch: Batch, key: jax.Array, update: base.Update):
        if self.discriminator is None:
            return super().step(state, batch, key, update)

        def discriminating(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            large = self.inputs.train(batch, key)["image"]
            made, model_state = self._train(
                _GENERATOR, state.params, model_state, self._small(large)
            )
            of_real, model_state = self._train(_DISCRIMINATOR, params, model_state, large)
            of_made, model_state = self._train(_DISCRIMINATOR, params, model_state, made)
            loss = jnp.mean(jax.nn.softplus(-of_real)) + jnp.mean(jax.nn.softplus(of_made))
            sums = {
                "discriminator_loss": _mean(loss),
                "real_probability": _mean(jax.nn.sigmoid(of_real).mean()),
                "fake_probability": _mean(jax.nn.sigmoid(of_made).mean()),
            }
            return loss, (model_state, sums)

        gradient, (model_state, sums) = update.gradients(
            _DISCRIMINATOR, discriminating, state, batch, key
        )
        state = update(_DISCRIMINATOR, gradient, state.replace(model_state=model_state))

        def generating(params: Any, model_state: Any, batch: Batch, key: jax.Array):
            large = self.inputs.train(batch, key)["image"]
            made, model_state = self._train(_GENERATOR, params, model_state, self._small(large))
            of_made, model_state = self._train(_DISCRIMINATOR, state.params, model_state, made)
            content, sums = self._content(model_state, made, large)
            opinion = jnp.mean(jax.nn.softplus(-of_made))
            total = content + self.adversarial_weight * opinion
            sums |= {"loss": _mean(total), "generator_loss": _mean(opinion)}
            return total, (model_state, sums)

        # The same key: both networks see the same crops.
        gradient, (model_state, more) = update.gradients(_GENERATOR, generating, state, batch, key)
        state = update(_GENERATOR, gradient, state.replace(model_state=model_state))
        return state, {**more, **sums}

    # -- evaluation and use ----------------------------------------------------------------------

    def _enlarged(self, variables: Variables, small: jax.Array) -> jax.Array:
        """Images of 0..1 as pixels, in evaluation mode."""
        return as_pixels(base.apply_eval(self.model, _of(_GENERATOR, variables), small))

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """PSNR and SSIM of luma, without a border of `scale` pixels, as the literature has it."""
        large, valid = batch["image"], batch["valid"]
        small = self._small(to_float(large))
        found = {
            "": self._enlarged(variables, small),
            "bicubic_": resize_pixels(as_pixels(small), large.shape[1:3]),
        }
        sums, signals = {}, {}
        for name, images in found.items():
            a, b = (self._compared(x) for x in (images, large))
            signals[name] = psnr(a, b, 255.0)
            sums[f"{name}psnr"] = Mean.of(signals[name], valid)
            sums[f"{name}ssim"] = Mean.of(ssim(a, b, 255.0, window=11, gaussian=1.5), valid)
            if self.lpips is not None:
                both = (to_float(x) for x in (images, large))
                sums[f"{name}lpips"] = Mean.of(self.lpips.distance(variables[_LPIPS], *both), valid)
        sums["psnr_gain"] = Mean.of(signals[""] - signals["bicubic_"], valid)
        return sums, {}

    def _compared(self, images: jax.Array) -> jax.Array:
        """Luma of pixels without their border, [b, h, w, 1]."""
        border = self.model.scale
        inside = images[:, border:-border, border:-border].astype(jnp.float32)
        return luma(inside) if images.shape[-1] == 3 else inside

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`enlarged`: the images `scale` times as large, uint8."""
        return {"enlarged": self._enlarged(variables, to_float(batch["image"]))}

    def pictured(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """What is made of images that were made small: `enlarged`, and `bicubic` beside it."""
        large = batch["image"]
        small = self._small(to_float(large))
        bicubic = resize_pixels(as_pixels(small), large.shape[1:3])
        return {"enlarged": self._enlarged(variables, small), "bicubic": bicubic}

    def join_tiles(
        self,
        outputs: Sequence[Mapping[str, np.ndarray]],
        corners: Sequence[Sequence[int]],
        tile: Sequence[int],
        size: Sequence[int],
    ) -> dict[str, np.ndarray]:
        """`enlarged` of an image of all its tiles, blended where they overlap; on the host."""
        scale = self.model.scale
        channels = outputs[0]["enlarged"].shape[-1]
        total = np.zeros((scale * size[0], scale * size[1], channels), np.float32)
        weights = np.zeros((*total.shape[:2], 1), np.float32)
        rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in
                         (scale * tile[0], scale * tile[1]))  # fmt: skip
        weight = np.multiply.outer(rows, columns)[..., None].astype(np.float32)
        for output, corner in zip(outputs, corners, strict=True):
            place = tuple(
                slice(scale * start, scale * (start + side)) for start, side in zip(corner, tile)
            )
            total[place] += weight * output["enlarged"]
            weights[place] += weight
        return {"enlarged": np.round(total / weights).astype(np.uint8)}


def luma(pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w 1"]:
    """Y of ITU-R BT.601 for pixels of 0..255, from 16 to 235: MATLAB's `rgb2ycbcr`."""
    weights = jnp.asarray((65.481, 128.553, 24.966)) / 255
    return 16 + jnp.sum(pixels * weights, axis=-1, keepdims=True)


def _of(name: str, variables: Variables) -> Variables:
    """One network's own variables."""
    return networks.part(name, variables, (_PERCEPTUAL, _LPIPS))


def _mean(value: jax.Array) -> Mean:
    return Mean.of(value, jnp.ones(()))
