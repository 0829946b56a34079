"""VQ-VAE: van den Oord et al., Neural Discrete Representation Learning, 2017.

https://arxiv.org/abs/1711.00937. Section 4.1's network: two convolutions that halve the map and two
residual blocks; the decoder is its mirror image. Between them each place of the map is replaced by
the nearest entry of a codebook. The reference is tests/parity/networks/vqvae.py, whose quantizers
are pythae's `Quantizer` and `QuantizerEMA`.

The codebook is learnt by gradient, or follows the encoder by moving averages (appendix A.1). Then
it is no parameter but the collection `codebook`, and entries that are little used may be replaced
by what the encoder gives at a random place (Dhariwal et al., Jukebox, 2020,
https://arxiv.org/abs/2005.00341, section 3.1; not in the reference).
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.images import check_multiple
from jaxvision.models.variant import Variant

_EXACT = lax.Precision.HIGHEST  # entries are copied, not rounded
_SMOOTHING = 1e-5


class Codes(NamedTuple):
    """Entries of a codebook.

    Attributes:
      vectors: the nearest entry of each place.
      indices: which it is.
    """

    vectors: Float[Array, "b h w k"]
    indices: Int[Array, "b h w"]


def around_zero(count: int) -> Initializer:
    """Uniform between -1/count and 1/count, so that no entry is far from what comes first."""

    def start(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -1 / count, 1 / count)

    return start


class Quantizer(nn.Module):
    """Replaces vectors by the nearest entries of a codebook.

    Attributes:
      codes: entries of the codebook.
      width: length of an entry.
      moving_average: whether the codebook follows its vectors in training; else it is a parameter.
      decay: of the moving averages.
      restart: entries to which fewer vectors of a batch belong on average are replaced; 0 is off.
    """

    codes: int
    width: int
    moving_average: bool = False
    decay: float = 0.99
    restart: float = 0.0

    def setup(self):
        start, shape = around_zero(self.codes), (self.codes, self.width)
        if not self.moving_average:
            self.embeddings = nn.Embed(*shape, embedding_init=start)
            return
        self.entries = self.variable(
            "codebook", "embeddings", lambda: start(self.make_rng("params"), shape)
        )
        self.totals = self.variable("codebook", "ema_embed", lambda: self.entries.value)
        self.counts = self.variable("codebook", "cluster_size", jnp.zeros, (self.codes,))

    def __call__(self, vectors: Float[Array, "b h w k"], train: bool = False) -> Codes:
        """The nearest entries; moves the codebook in training where it follows its vectors."""
        entries = self.entries.value if self.moving_average else self.embeddings.embedding
        flat = vectors.reshape(-1, self.width).astype(jnp.float32)
        # The distance from an entry without what is the same for all entries.
        products = jnp.matmul(flat, entries.T, precision=_EXACT)
        indices = jnp.argmin(jnp.square(entries).sum(-1) - 2 * products, -1)
        chosen = jax.nn.one_hot(indices, self.codes)
        nearest = jnp.matmul(chosen, entries, precision=_EXACT)
        if train and self.moving_average and not self.is_initializing():
            self._follow(lax.stop_gradient(flat), chosen)
        return Codes(nearest.reshape(vectors.shape), indices.reshape(vectors.shape[:-1]))

    def _follow(self, flat: Float[Array, "n k"], chosen: Float[Array, "n codes"]) -> None:
        """Moves each entry towards the mean of the vectors that it is nearest to."""
        keep = self.decay
        counts = keep * self.counts.value + (1 - keep) * chosen.sum(0)
        totals = jnp.matmul(chosen.T, flat, precision=_EXACT)
        self.totals.value = keep * self.totals.value + (1 - keep) * totals
        # Smoothed, so that nothing is divided by 0.
        total = counts.sum()
        self.counts.value = (counts + _SMOOTHING) / (total + self.codes * _SMOOTHING) * total
        entries = self.totals.value / self.counts.value[:, None]
        if self.restart:
            rows = jax.random.randint(self.make_rng("codes"), (self.codes,), 0, len(flat))
            idle = self.counts.value < self.restart
            entries = jnp.where(idle[:, None], flat[rows], entries)
        self.entries.value = entries


class Residual(nn.Module):
    """ReLU, a 3x3 convolution, ReLU, a 1x1 convolution; added to what came in.

    Attributes:
      width: channels between the convolutions.
    """

    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = Conv2d(self.width, 3, use_bias=False, dtype=self.dtype, name="conv1")(nn.relu(x))
        y = Conv2d(x.shape[-1], 1, use_bias=False, dtype=self.dtype, name="conv2")(nn.relu(y))
        return x + y


class Encoder(nn.Module):
    """Two halvings, a 3x3 convolution and residual blocks."""

    hidden: int
    residual: int
    blocks: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b i j d"]:
        x = nn.relu(Conv2d(self.hidden // 2, 4, 2, 1, dtype=self.dtype, name="conv1")(image))
        x = nn.relu(Conv2d(self.hidden, 4, 2, 1, dtype=self.dtype, name="conv2")(x))
        x = Conv2d(self.hidden, 3, dtype=self.dtype, name="conv3")(x)
        for index in range(self.blocks):
            x = Residual(self.residual, self.dtype, name=f"blocks_{index}")(x)
        return nn.relu(x)


class Decoder(nn.Module):
    """A 3x3 convolution, residual blocks and two doublings."""

    channels: int
    hidden: int
    residual: int
    blocks: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Float[Array, "b i j k"]) -> Float[Array, "b h w c"]:
        x = Conv2d(self.hidden, 3, dtype=self.dtype, name="conv1")(latent)
        for index in range(self.blocks):
            x = Residual(self.residual, self.dtype, name=f"blocks_{index}")(x)
        x = nn.relu(x)
        up = ConvTranspose2d(self.hidden // 2, 4, 2, 1, dtype=self.dtype, name="deconv1")
        return ConvTranspose2d(self.channels, 4, 2, 1, dtype=self.dtype, name="deconv2")(
            nn.relu(up(x))
        )


class VQVAE(nn.Module):
    """Images of any size whose sides are multiples of 4; a code for each 4x4 pixels.

    Attributes:
      channels: of the images.
      hidden: channels of the maps.
      residual: channels within residual blocks.
      blocks: residual blocks on either side.
      codes: entries of the codebook.
      width: length of an entry.
      moving_average, decay, restart: of the codebook, see `Quantizer`.
    """

    CODE: ClassVar[str] = "codebook"
    stride: ClassVar[int] = 4

    channels: int = 3
    hidden: int = 256
    residual: int = 256
    blocks: int = 2
    codes: int = 512
    width: int = 64
    moving_average: bool = False
    decay: float = 0.99
    restart: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self):
        if self.restart and not self.moving_average:
            raise UserError("model.options.restart wants model.options.moving_average=true.")
        sizes = (self.hidden, self.residual, self.blocks, self.dtype)
        self.encoder = Encoder(*sizes)
        self.pre_quantizer = Conv2d(self.width, 1, dtype=self.dtype)
        self.quantizer = Quantizer(
            self.codes, self.width, self.moving_average, self.decay, self.restart
        )
        self.decoder = Decoder(self.channels, *sizes)

    def encode(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j k"]:
        check_multiple(image, self.stride, "A VQ-VAE")
        return self.pre_quantizer(self.encoder(image))

    def quantize(self, code: Float[Array, "b i j k"], train: bool = False) -> Codes:
        return self.quantizer(code, train)

    def decode(
        self, latent: Float[Array, "b i j k"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decoder(latent)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.quantize(self.encode(image, train), train).vectors, train)


VARIANTS = {
    "vqvae": Variant(
        VQVAE,
        {},
        "tests/parity/networks/vqvae.py VQVAE()",
        (32, 32, 3),
        "van den Oord et al. 2017, https://arxiv.org/abs/1711.00937",
        first="encoder.conv1",
    ),
    "vqvae_ema": Variant(
        VQVAE,
        {"moving_average": True},
        "tests/parity/networks/vqvae.py VQVAE(moving_average=True)",
        (32, 32, 3),
        "van den Oord et al. 2017, https://arxiv.org/abs/1711.00937",
        first="encoder.conv1",
    ),
}
