"""Autoencoding: a network makes a code of an image, and the image again of the code.

`Autoencoding` is of networks whose code is a vector or a map. Other kinds of code, by a network's
`CODE`, have a class of their own each, see `KINDS`. The loss is in nats an image.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxvision import models, pretrained
from jaxvision.errors import UserError, unknown
from jaxvision.losses import (
    Objective,
    Ratio,
    masked_ratio,
)
from jaxvision.metrics import Mean
from jaxvision.metrics.images import psnr, ssim
from jaxvision.registry import Registry, located
from jaxvision.tasks import base, judging, sampling
from jaxvision.tasks.autoencoding.likelihood import LOG_SCALE, Likelihood
from jaxvision.tasks.base import Batch, Metric, Sums, Variables
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.judging import Judge
from jaxvision.tasks.sampling import AS_TRAINED, Sampling

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_WINDOW = 7  # of SSIM, which smaller images have none of
# By what a network says its code is, where the class of its task is: `module:class`.
KINDS: Registry[str] = Registry(
    "kind of code",
    {
        "vector": "jaxvision.tasks.autoencoding.task:Autoencoding",
        "posterior": "jaxvision.tasks.autoencoding.variational:Variational",
        "codebook": "jaxvision.tasks.autoencoding.quantized:Quantized",
        "tokens": "jaxvision.tasks.autoencoding.tokens:Tokens",
    },
)

Progress = jax.Array | float


class Coded(NamedTuple):
    """A training batch as codes.

    Attributes:
      latent: what the decoder is given, [b, ...].
      costs: what is lowered beside the pixels' loss, by name.
      sums: for the log.
    """

    latent: jax.Array
    costs: dict[str, Ratio]
    sums: Sums


@dataclass(frozen=True)
class Autoencoding(sampling.Generative, base.Task):
    """Batches carry `image` and `valid`.

    Attributes:
      likelihood: of pixels, which decoders say something of.
      judge: by which evaluation compares images with real ones.
      compares_samples: whether these are samples; else reconstructions.
    """

    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric("lower", fatal=True),
        "reconstruction": Metric("lower"),
        "kl": Metric("neither"),
        "elbo": Metric("higher"),
        "bits_per_dimension": Metric("lower"),
        "psnr": Metric("higher"),
        "ssim": Metric("higher"),
        "active_units": Metric("higher"),
        "codebook_perplexity": Metric("higher"),
        "codebook_usage": Metric("higher"),
        "commitment": Metric("lower"),
        "scale": Metric("neither"),
        "temperature": Metric("neither"),
        **judging.METRICS,
    }
    main_metric: ClassVar[str] = "reconstruction"

    model: Any
    likelihood: Likelihood
    inputs: Inputs = field(default_factory=Inputs)
    judge: Judge = field(default_factory=Judge)
    class_names: tuple[str, ...] = ()
    compares_samples: bool = False

    @classmethod
    def create(cls, config: "ConfigDict", facts: Any) -> "Autoencoding":
        own, name, inputs = config.autoencoding, config.model.name, Inputs.create(config, facts)
        if not hasattr(models.variant(name).module, "CODE"):
            having = [n for n in models.names() if hasattr(models.variant(n).module, "CODE")]
            raise unknown("model that encodes and decodes", name, having)
        more = {}
        if own.likelihood == "logit_laplace":
            if "scales" not in models.options(name):
                having = [n for n in models.names() if "scales" in models.options(n)]
                raise unknown("model that gives a scale with each value", name, having)
            more["scales"] = True
        network: Any = base.create_network(config, channels=config.data.channels, **more)
        prior = network.CODE == "posterior"
        if own.compared == "samples" and not prior:
            raise UserError(f"autoencoding.compared='samples': codes of {name} have no prior.")
        samples = own.compared == "samples" or (prior and len(network.latent_shape) == 1)
        task = located(KINDS[network.CODE])
        return task(
            model=network,
            likelihood=Likelihood(inputs, own.likelihood, own.scale, own.learn_scale),
            inputs=inputs,
            judge=Judge.create(own.judge),
            class_names=facts.class_names,
            compares_samples=samples and own.compared != "reconstructions",
            **task.own_fields(config),
        )

    @classmethod
    def own_fields(cls, config: "ConfigDict") -> dict[str, Any]:
        """What a kind has beside the others, as configured.

        Raises:
          UserError: it does not fit.
        """
        return {}

    # -- variables -------------------------------------------------------------------------------

    def init(self, key: jax.Array, spec: base.Spec) -> Variables:
        of_network, of_judge = jax.random.split(key)
        shape = tuple(spec["image"].shape[1:])
        sides = (side + -side % self.model.stride for side in shape[:2])  # as `predict` makes them
        image = jnp.zeros((1, *sides, shape[2]))
        found = dict(self.model.init(of_network, image, train=False))
        found["params"] = {**found["params"], **self.likelihood.init()}
        return found | self.judge.init(of_judge, shape)

    def of_network(self, variables: Variables) -> Variables:
        own = {kind: tree for kind, tree in variables.items() if kind != judging.COLLECTION}
        params = {name: tree for name, tree in own["params"].items() if name != LOG_SCALE}
        return {**own, "params": params}

    def names_weights(self, config: "ConfigDict") -> bool:
        return bool(self.judge.weights) or super().names_weights(config)

    def load_weights(self, config: "ConfigDict", variables: Variables, read: base.Reader):
        own = self.of_network(variables)
        own = base.load_network(config, self.model, own, read)
        params = {**variables["params"], **own["params"]}
        return self.judge.load({**variables, **own, "params": params}, read)

    def with_weights(
        self, name: str, weights: pretrained.Weights, variables: Variables, read: base.Reader
    ) -> Variables:
        """The scale, where it is learnt, is the configured one."""
        own = super().with_weights(name, weights, self.of_network(variables), read)
        own["params"] = {**own["params"], **self.likelihood.init()}
        return self.judge.load({**variables, **own}, read)

    def parts(self, variables: Variables) -> dict[str, Variables]:
        """The network, and where it has two halves, each of them."""
        own = self.of_network(variables)
        halves = {
            name: {kind: tree[name] for kind, tree in own.items() if name in tree}
            for name in ("encoder", "decoder")
            if name in own["params"]
        }
        return {"model": own, **halves}

    def _apply(self, variables: Variables, *inputs: jax.Array, method: str) -> Any:
        """What a method of the network gives in evaluation mode."""
        return self.model.apply(self.of_network(variables), *inputs, train=False, method=method)

    # -- training --------------------------------------------------------------------------------

    def _train_code(
        self, network: Any, image: jax.Array, valid: jax.Array, key: jax.Array, progress: Progress
    ) -> Coded:
        """A training batch as codes, by the network with its variables."""
        return Coded(network.encode(image, train=True), {}, {})

    def loss(
        self,
        params: Any,
        model_state: Any,
        batch: Batch,
        key: jax.Array,
        progress: Progress = 1.0,
    ):
        """See `base.Task`; `progress` is the share of the training that is over."""
        augment_key, code_key, *keys = jax.random.split(key, 4)
        valid, image = batch["valid"], self.inputs.train(batch, augment_key)["image"]
        own = self.of_network({"params": params, **model_state})
        changing = [kind for kind in own if kind != "params"]

        def both(network: Any, image: jax.Array) -> tuple[jax.Array, Coded]:
            coded = self._train_code(network, image, valid, code_key, progress)
            return network.decode(coded.latent, train=True), coded

        (output, coded), updated = self.model.apply(
            own, image, method=both, mutable=changing, rngs=dict(zip(("dropout", "codes"), keys))
        )
        nll = self.likelihood.nll(output, self.inputs.pixels(image), params)
        means = {"reconstruction": masked_ratio(nll, jnp.ones_like(nll), valid), **coded.costs}
        sums = {"reconstruction": Mean.of(nll, valid), **coded.sums, **self._scale(params)}
        return Objective(means), ({**model_state, **updated}, sums)

    def _scale(self, params: Any) -> Sums:
        if not self.likelihood.learnt:
            return {}
        return {"scale": Mean.of(jnp.exp(params[LOG_SCALE]), jnp.ones(()))}

    # -- evaluation ------------------------------------------------------------------------------

    def _latent(self, variables: Variables, code: Any) -> jax.Array:
        """What the decoder is given of a code, without chance."""
        return code

    def _code_metrics(
        self, variables: Variables, code: Any, nll: jax.Array, batch: Batch, key: jax.Array
    ) -> Sums:
        """`loss`, and the metrics of a code.

        Args:
          variables: of the task.
          code: what the encoder gives.
          nll: of each image's pixels, given the latent without chance.
          batch: `image` normalised, and `valid`.
          key: for what is drawn.
        """
        return {"loss": Mean.of(nll, batch["valid"])}

    def _bound(self, nll: jax.Array, kl: jax.Array, pixels: jax.Array, valid: jax.Array) -> Sums:
        """The lower bound of the likelihood, of which `nll` and `kl` are the two parts."""
        bits = self.likelihood.bits_per_dimension(nll + kl, math.prod(pixels.shape[1:]))
        return {
            "kl": Mean.of(kl, valid),
            "elbo": Mean.of(-nll - kl, valid),
            "bits_per_dimension": Mean.of(bits, valid),
        }

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        code_key, judge_key = jax.random.split(key)
        image, valid = self.inputs.evaluate(batch["image"]), batch["valid"]
        pixels = self.inputs.pixels(image)
        code = self._apply(variables, image, method="encode")
        output = self._apply(variables, self._latent(variables, code), method="decode")
        nll = self.likelihood.nll(output, pixels, variables["params"])
        seen = jnp.clip(self.likelihood.image(output), 0, 1)
        batch = {"image": image, "valid": valid}
        sums = self._code_metrics(variables, code, nll, batch, code_key)
        sums |= {"reconstruction": Mean.of(nll, valid), "psnr": Mean.of(psnr(seen, pixels), valid)}
        if min(seen.shape[1:3]) >= _WINDOW:
            sums["ssim"] = Mean.of(ssim(seen, pixels), valid)
        if self.compares_samples:
            latents = self.latents(sampling.row_keys(judge_key, len(image)))
            seen = jnp.clip(self._images(variables, latents), 0, 1)
        return sums | self._scale(variables["params"]), self.judge.rows(variables, pixels, seen)

    def score(self, rows: Mapping[str, Any]) -> dict[str, float]:
        return self.judge.scores(rows)

    def scores(self) -> tuple[str, ...]:
        return self.judge.names

    # -- use -------------------------------------------------------------------------------------

    def features(self, variables: Variables, image: jax.Array) -> jax.Array:
        """The code without chance, float32 [b, f], of uint8 images."""
        code = self._apply(variables, self.inputs.evaluate(image), method="encode")
        latent = self._latent(variables, code)
        return latent.reshape(latent.shape[0], -1).astype(jnp.float32)

    def predict(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`image` uint8, the reconstruction; nats of its pixels as `reconstruction`; `psnr`.

        Images of networks for many sizes are continued by their last pixels to the next size that
        the network takes, and cut back. What `Variational` and `Quantized` add is of all of it.
        """
        height, width = batch["image"].shape[1:3]
        stride = self.model.stride
        margins = ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0))
        image = self.inputs.evaluate(jnp.pad(batch["image"], margins, mode="edge"))
        code = self._apply(variables, image, method="encode")
        output = self._apply(variables, self._latent(variables, code), method="decode")
        output, pixels = (x[:, :height, :width] for x in (output, self.inputs.pixels(image)))
        seen = jnp.clip(self.likelihood.image(output), 0, 1)
        return {
            "image": sampling.as_pixels(seen),
            "reconstruction": self.likelihood.nll(output, pixels, variables["params"]),
            "psnr": psnr(seen, pixels),
            **self._code_outputs(variables, code),
        }

    def _code_outputs(self, variables: Variables, code: Any) -> dict[str, jax.Array]:
        """What `predict` gives of a code."""
        return {}

    def pictured(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """`predict`'s, and as many `samples`, where these are what evaluation compares."""
        found = self.predict(variables, batch, key)
        if self.compares_samples:
            found["samples"] = self.sample(variables, key, len(batch["image"]))
        return found

    def _images(self, variables: Variables, latents: jax.Array) -> jax.Array:
        """The means of images, float32 [b, h, w, c] from 0 to 1."""
        return self.likelihood.image(self._apply(variables, latents, method="decode"))

    def latents(self, keys: jax.Array) -> jax.Array:
        raise UserError(
            f"Codes of {type(self.model).__name__} have no prior to draw from; networks with a "
            "posterior do, such as vae_conv."
        )

    def generate(
        self,
        variables: Variables,
        latents: jax.Array,
        keys: jax.Array,
        labels: jax.Array | None = None,
        settings: Sampling = AS_TRAINED,
    ) -> jax.Array:
        return sampling.as_pixels(self._images(variables, settings.truncation * latents))
