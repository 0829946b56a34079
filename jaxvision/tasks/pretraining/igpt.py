"""Image GPT: Chen et al., Generative Pretraining from Pixels, 2020.

https://proceedings.mlr.press/v119/chen20s.html. Pixels become colours of the run's palette, and a
decoder learns the colour that follows those before it, row by row. New images are drawn pixel by
pixel; so is what follows the part of an image that is seen.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvision import pretrained
from jaxvision.data import palette as palettes
from jaxvision.errors import UserError
from jaxvision.losses import Objective, cross_entropy, masked_ratio
from jaxvision.metrics import Mean
from jaxvision.ops import decoding
from jaxvision.ops.convolution import pair
from jaxvision.ops.palette import coloured, nearest_colours
from jaxvision.tasks import base, sampling
from jaxvision.tasks.base import Batch, Spec, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pretraining.task import Pretraining
from jaxvision.tasks.sampling import AS_TRAINED, Sampling, as_pixels, row_keys

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_NEVER = -1  # a colour that ends nothing, or is still to be drawn
_GREY = 128  # of what is not seen


@dataclass(frozen=True)
class ImageGPT(sampling.Generative, Pretraining):
    """The loss is in nats a pixel, each of which is one colour.

    Attributes:
      palette: the colours, see `Facts.palette`.
      probed_block: the block whose attention is given the features.
      temperature, top_k, top_p: of draws, see `ops.decoding.sample`.
    """

    picture_name: ClassVar[str] = "reconstructions"

    model: Any
    palette: palettes.Palette = ()
    probed_block: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> Self:
        own, name = config.pretraining, config.model.name
        palette = facts.palette or palettes.of(config.data, None)
        if not palette:
            raise UserError(
                f"It is not known what colours {name} says: set data.palette, to how many are to "
                "be learned of the images to train on, or to a file that has them, such as the "
                "facts.json of the run that the weights are of."
            )
        if len(palette[0]) != config.data.channels:
            raise UserError(
                f"The colours of the palette have {len(palette[0])} channels, images "
                f"{config.data.channels} (data.channels)."
            )
        model: Any = base.create_network(config, colours=len(palette))
        if own.probed_block >= model.depth:
            raise UserError(
                f"pretraining.probed_block={own.probed_block}: {name} has {model.depth} blocks, "
                "from 0 on."
            )
        return cls(
            model=model,
            class_names=facts.class_names,
            inputs=Inputs.create(config, facts),
            neighbours=own.neighbours,
            palette=palette,
            probed_block=model.depth // 2 if own.probed_block < 0 else own.probed_block,
            temperature=own.sampling_temperature,
            top_k=own.sampling_top_k,
            top_p=own.sampling_top_p,
        )

    @property
    def made(self) -> tuple[int, ...]:
        return (*pair(self.model.size), len(self.palette[0]))

    def init(self, key: jax.Array, spec: Spec) -> Variables:
        have, want = tuple(spec["image"].shape[1:3]), pair(self.model.size)
        if have != want:
            text = ["x".join(map(str, sides)) for sides in (have, want)]
            raise UserError(
                f"The data have images of {text[0]}; set model.options.size="
                f"{have[0] if have[0] == have[1] else have}, or resize them to {text[1]}."
            )
        return dict(self.model.init(key, jnp.zeros((1, 1), jnp.int32)))

    def load_weights(
        self, config: "ConfigDict", variables: Variables, read: base.Reader
    ) -> Variables:
        def known(weights: str, name: str, *preferred: str) -> pretrained.Weights:
            found = read(weights, name, *preferred)
            theirs = _palette_of(found)
            if theirs and theirs != self.palette:
                raise UserError(
                    f"The colours of {weights} are others than those of this run. Set data.palette "
                    "to the file that has them."
                )
            return found

        return base.load_network(config, self.model, variables, known)

    def parts(self, variables: Variables) -> dict[str, Variables]:
        return {"model": variables}

    # -- colours ---------------------------------------------------------------------------------

    @property
    def _palette(self) -> Float[Array, "k c"]:
        return jnp.asarray(np.asarray(self.palette) / 255, jnp.float32)

    def colours(self, image: UInt8[Array, "b h w c"]) -> Int[Array, "b n"]:
        """The nearest colour of each pixel, row by row."""
        return nearest_colours(image.astype(jnp.float32) / 255, self._palette)

    def images(self, colours: Int[Array, "b n"]) -> UInt8[Array, "b h w c"]:
        """The images of colours."""
        return as_pixels(coloured(colours, self._palette, pair(self.model.size)))

    def _read(self, colours: Int[Array, "b n"]) -> Int[Array, "b n"]:
        """What is read while these are said: the begin, and all but the last."""
        begin = jnp.full((colours.shape[0], 1), self.model.colours, jnp.int32)
        return jnp.concatenate([begin, colours[:, :-1]], 1)

    # -- training and evaluation -----------------------------------------------------------------

    def loss(self, params: Any, model_state: Any, batch: Batch, key: jax.Array):
        augment_key, dropout_key = jax.random.split(key)
        image = self.inputs.train(batch, augment_key)["image"]
        said = nearest_colours(self.inputs.pixels(image), self._palette)
        logits, model_state = base.apply_train(
            self.model, params, model_state, self._read(said), dropout_key
        )
        entropy, weight = cross_entropy(logits, said)
        counted = jnp.broadcast_to(batch["valid"][:, None], said.shape)
        mean = masked_ratio(entropy, weight, counted)
        return Objective({"colours": mean}), (model_state, {})

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        said = self.colours(batch["image"])
        logits: Any = self.model.apply(variables, self._read(said))
        nats = cross_entropy(logits, said)[0].mean(1)
        _, rows = super().evaluate(variables, batch, key)
        return {
            "loss": Mean.of(nats, batch["valid"]),
            "bits_per_dimension": Mean.of(nats / np.log(2), batch["valid"]),
        }, rows

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """The mean over pixels of what a block's attention is given (section 3.4)."""
        found: Any = self.model.apply(
            variables, self._read(self.colours(image)), self.probed_block, method="features"
        )
        return found.astype(jnp.float32)

    # -- drawing ---------------------------------------------------------------------------------

    def continued(
        self, variables: Variables, given: Int[Array, "b n"], keys: Array
    ) -> Int[Array, "b n"]:
        """Colours row by row, drawn where -1 is given; one loop on the device."""
        cache: Any = self.model.apply(variables, given.shape[0], method="start")
        found = decoding.sample(
            partial(self.model.apply, variables, method="step"),
            cache,
            keys,
            begin=self.model.colours,
            end=_NEVER,
            pad=0,
            length=given.shape[1],
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            given=given,
        )
        return found.tokens

    def latents(self, keys: Array) -> Float[Array, "b 0"]:
        return jnp.zeros((keys.shape[0], 0))

    def generate(
        self,
        variables: Variables,
        latents: Float[Array, "b 0"],
        keys: Array,
        labels: Int[Array, " b"] | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> UInt8[Array, "b h w c"]:
        given = jnp.full((keys.shape[0], self.model.positions), _NEVER)
        return self.images(self.continued(variables, given, keys))

    def check_mask(self, mask: Bool[np.ndarray, "h w"]) -> None:
        marked = mask.ravel()
        if not marked[marked.argmax() :].all():
            raise UserError(
                "This network makes pixels row by row, after those before: a mask is white from "
                "one pixel on to the last, as that of the lower half is."
            )

    def inpaint(
        self,
        variables: Variables,
        images: UInt8[Array, "b h w c"],
        masks: Bool[Array, "b h w"],
        keys: Array,
        labels: Int[Array, " b"] | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> UInt8[Array, "b h w c"]:
        """What could follow where masks are True, which `check_mask` has let pass."""
        marked = masks.reshape(len(masks), -1)
        given = jnp.where(marked, _NEVER, self.colours(images))
        made = self.images(self.continued(variables, given, keys))
        return jnp.where(masks[..., None], made, images)

    def pictured(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`predict`'s; `hidden`, the upper halves; `reconstruction`, the same continued."""
        images = jnp.asarray(batch["image"])
        rows, height = len(images), images.shape[1]
        lower = jnp.broadcast_to(jnp.arange(height)[:, None] >= height // 2, images.shape[1:3])
        masks = jnp.broadcast_to(lower, images.shape[:3])
        return {
            **self.predict(variables, batch, key),
            "hidden": jnp.where(masks[..., None], jnp.uint8(_GREY), images),
            "reconstruction": self.inpaint(variables, images, masks, row_keys(key, rows)),
        }


def _palette_of(weights: pretrained.Weights) -> palettes.Palette:
    """The colours that weights are known to say: of their run, or in a file beside them."""
    about = weights.published
    if weights.palette or about is None or not about.palette:
        return weights.palette
    beside = Path(weights.where).parent / about.palette
    return palettes.load(beside) if beside.is_file() else ()
