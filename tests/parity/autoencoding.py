"""Autoencoders beside their PyTorch references, through one training step.

    python tests/parity/autoencoding.py

writes tests/parity/golden/autoencoding.npz: of each case some of what encoder and decoder give in
evaluation, the loss of a training step and its parts, some of every parameter's gradient and its
norm, what else changes, and the names and shapes of its state_dict; and of the published networks
how many parameters they have. See README.md for the environment, and in it
`pip install --no-deps pythae==0.1.2 diffusers==0.42.1` with pydantic and what else they import.
"""

import json
import sys
import unittest.mock
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, image, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "autoencoding.npz"
OUTPUTS, GRADIENTS = 60, 4  # values kept of an output, and of each parameter's gradient
SCALE = 0.3  # of the Gaussian, where pixels have one
TEMPERATURE, BETA = 0.5, 6.6  # of discrete codes


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      model: the registry's name.
      options: for `models.create`.
      image: the batch's shape in PyTorch's layout.
      code: what is between encoder and decoder.
      likelihood: of pixels.
    """

    model: str
    image: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str = "vector"
    likelihood: str = "bernoulli"

    @property
    def bernoulli(self) -> bool:
        return self.likelihood == "bernoulli"


_SMALL = {"size": 14, "channels": 2, "latent": 3, "widths": (4, 6, 8)}
_VQ = {"channels": 2, "hidden": 8, "residual": 6, "blocks": 2, "codes": 12, "width": 4}
_DISCRETE = {
    **{"channels": 2, "hidden": 8, "groups": 2, "blocks": 2, "codes": 10, "width": 6},
    "scales": True,
}
CASES = {
    "ae_mlp": Case("ae_mlp", (4, 2, 6, 5), {"size": (6, 5), "channels": 2, "latent": 4}),
    "ae_conv": Case("ae_conv", (4, 2, 14, 14), _SMALL),
    "vae_mlp": Case(
        "vae_mlp",
        (4, 2, 6, 5),
        {"size": (6, 5), "channels": 2, "latent": 4, "hidden": 7},
        "posterior",
    ),
    "vae_conv": Case("vae_conv", (4, 2, 14, 14), _SMALL, "posterior"),
    "vqvae": Case("vqvae", (2, 2, 8, 12), _VQ, "codebook", "gaussian"),
    "vqvae_ema": Case("vqvae_ema", (2, 2, 8, 12), _VQ, "codebook", "gaussian"),
    "autoencoder_kl": Case(
        "autoencoder_kl",
        (2, 3, 16, 24),
        {"widths": (8, 8, 16), "depth": 1, "groups": 4, "latent": 3},
        "posterior",
        "gaussian",
    ),
    "dvae": Case("dvae", (2, 2, 8, 12), _DISCRETE, "tokens", "logit_laplace"),
}


def pixels(name: str, draw: int) -> np.ndarray:
    """The n-th draw of a case's images, uint8."""
    return np.round(255 * (image(CASES[name].image, draw) / 3.4 + 0.5)).astype(np.uint8)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a posterior is drawn by, in PyTorch's layout."""
    return 1.7 * _uniform(f"noise of {name}", shape)


def normalised(name: str, x: Any) -> Any:
    """Images from 0 to 1 as the network takes them."""
    return 2 * x - 1 if CASES[name].likelihood == "gaussian" else x


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a state_dict."""
    found = weights(name, shape)
    return 3 + 10 * found if name.endswith("cluster_size") else found


def build(name: str, **published: Any) -> Any:
    """The reference of a case, or with other options, without weights."""
    from parity.networks import dvae, vae, vqvae
    from parity.references import diffusers, pythae

    case = CASES[name]
    own = published or dict(case.options)
    if name == "autoencoder_kl":
        stages, widths = len(own["widths"]), own["widths"]
        return diffusers().AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=widths,
            layers_per_block=own["depth"],
            latent_channels=own["latent"],
            norm_num_groups=own["groups"],
        )
    if name == "dvae":
        return dvae.DVAE(**own)
    if name.startswith("vqvae"):
        return vqvae.VQVAE(**own, moving_average=name.endswith("ema"))
    if name == "vae_mlp":
        size = np.prod([*own["size"], own["channels"]])
        return vae.VAE(int(size), own["hidden"], own["latent"])
    if name == "ae_mlp":
        sizes = {"input_dim": (own["channels"], *own["size"]), "latent_dim": own["latent"]}
        return pythae().AE(pythae().AEConfig(**sizes))
    return (vae.ConvVAE if name == "vae_conv" else vae.ConvAE)(**own)


def halves(name: str, network: Any) -> tuple[Any, Any]:
    """(encoder, decoder) as functions; a posterior is (mean, log variance)."""
    if name == "ae_mlp":
        return (
            lambda x: [network.encoder(x).embedding],
            lambda z: network.decoder(z).reconstruction,
        )
    if name == "autoencoder_kl":

        def encode(x: Any) -> list[Any]:
            found = network.encode(x).latent_dist
            return [found.mean, found.logvar]

        return encode, lambda z: network.decode(z).sample
    if name == "dvae" or name.startswith("vqvae"):
        return lambda x: [network.encode(x)], network.decoder
    if name == "vae_mlp":
        shape = CASES[name].image[1:]
        return network.encode, lambda z: network.decode(z).unflatten(1, shape)
    return network.encode, network.decode


def lowered(name: str, network: Any, x: Any) -> dict[str, Any]:
    """The loss of a training step, the mean over images, and its parts."""
    import math

    import torch
    from torch.nn import functional

    case = CASES[name]
    encode, decode = halves(name, network)
    code, parts = encode(x), {}
    if case.code == "posterior":
        mean, log_variance = code
        drawn = torch.from_numpy(noise(name, tuple(mean.shape))).to(x.dtype)
        latent = mean + torch.exp(0.5 * log_variance) * drawn
        # As in pytorch/examples.
        parts["kl"] = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp()) / len(x)
    elif case.code == "tokens":
        # As in lucidrains/DALLE-pytorch: `F.gumbel_softmax`, of noise that is given here, and the
        # divergence from the uniform distribution.
        logits = code[0]
        drawn = torch.from_numpy(noise(name, tuple(logits.shape))).to(x.dtype)
        latent = ((logits + drawn) / TEMPERATURE).softmax(1)
        log_q = functional.log_softmax(logits, 1)
        uniform = torch.full_like(log_q, -math.log(logits.shape[1]))
        divergence = functional.kl_div(uniform, log_q, None, None, "sum", log_target=True)
        parts["kl"] = BETA * divergence / len(x)
    elif case.code == "codebook":
        found = network.quantizer(code[0].permute(0, 2, 3, 1))
        latent = found.quantized_vector
        # pythae's is a mean over all values, of commitment and perhaps codebook together.
        parts["codebook"] = found.loss * code[0].numel() / len(x)
    else:
        (latent,) = code
    output = decode(latent)
    if case.bernoulli:
        nll = functional.binary_cross_entropy(output, x, reduction="sum")
    elif case.likelihood == "logit_laplace":
        # Ramesh et al. 2021, appendix A.3, equation 2, of the mapped pixels; then of pixels.
        mapped, (median, log_scale) = 0.8 * x + 0.1, output.chunk(2, 1)
        density = torch.exp(-(torch.logit(mapped) - median).abs() / log_scale.exp())
        density = density / (2 * log_scale.exp() * mapped * (1 - mapped)) * 0.8
        nll = -density.log().sum()
    else:
        # Images are from -1 to 1 in the network.
        nll = functional.mse_loss(output, x, reduction="sum") / 4 / (2 * SCALE**2)
        nll = nll + x.numel() * (math.log(SCALE) + 0.5 * math.log(2 * math.pi))
    parts["reconstruction"] = nll / len(x)
    return {"loss": sum(parts.values()), **parts}


def outcome(name: str, draw: int, dtype: Any) -> dict[str, np.ndarray]:
    """What is compared of a case, on the n-th draw of its images, computed in `dtype`."""
    import torch

    torch.set_num_threads(1)
    case, network = CASES[name], build(name)
    kept = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    with torch.no_grad():
        for key, tensor in kept.items():
            tensor.copy_(torch.from_numpy(np.asarray(value(key, tuple(tensor.shape)))))
    network = network.to(dtype).eval()
    x = torch.from_numpy(pixels(name, draw)).to(dtype) / 255
    x = normalised(name, x)
    encode, decode = halves(name, network)
    with torch.no_grad():
        code = encode(x)
        latent = code[0]
        if case.code == "codebook":
            latent = network.quantizer(latent.permute(0, 2, 3, 1)).quantized_vector
        elif case.code == "tokens":
            latent = network.hard(latent)
        found = {f"code/{i}": sample(one.numpy(), OUTPUTS) for i, one in enumerate(code)}
        found["output"] = sample(decode(latent).numpy(), OUTPUTS)
    parts = lowered(name, network.train(), x)
    parts["loss"].backward()
    found |= {f"part/{key}": one.detach().numpy() for key, one in parts.items()}
    parameters = dict(network.named_parameters())
    gradients = [p.grad.numpy() for p in parameters.values()]
    buffers = {k: b for k, b in network.named_buffers() if b.is_floating_point()}
    found["draw"] = np.array(draw)
    found["norms"] = np.array([np.linalg.norm(g) for g in gradients])
    found["gradients"] = np.concatenate([sample(g, GRADIENTS) for g in gradients])
    found["moved"] = np.concatenate([[], *(sample(b.numpy(), GRADIENTS) for b in buffers.values())])
    found["shapes"] = np.array(json.dumps({k: list(v.shape) for k, v in kept.items()}))
    found["learnt"] = np.array(json.dumps(list(parameters)))
    found["buffers"] = np.array(json.dumps(list(buffers)))
    return found


def published() -> dict[str, int]:
    """The parameters of the published networks; those of pythae's benchmarks have ours' names."""
    from parity.networks import dvae, vae
    from parity.references import pythae

    models = pythae()
    from pythae.models.nn.benchmarks.mnist import (
        Decoder_Conv_AE_MNIST,
        Encoder_Conv_AE_MNIST,
        Encoder_Conv_VAE_MNIST,
    )

    sizes = {"input_dim": (1, 28, 28), "latent_dim": 16}
    plain, variational = models.AEConfig(**sizes), models.VAEConfig(**sizes)
    both = {
        "ae_conv": models.AE(plain, Encoder_Conv_AE_MNIST(plain), Decoder_Conv_AE_MNIST(plain)),
        "vae_conv": models.VAE(
            variational, Encoder_Conv_VAE_MNIST(variational), Decoder_Conv_AE_MNIST(variational)
        ),
    }
    for name, theirs in both.items():
        ours = (vae.ConvVAE if name == "vae_conv" else vae.ConvAE)().state_dict()
        assert {k: v.shape for k, v in theirs.state_dict().items()} == {
            k: v.shape for k, v in ours.items()
        }
    full = {"widths": (128, 256, 512, 512), "depth": 2, "groups": 32, "latent": 4}
    networks = {
        **both,
        "ae_mlp": models.AE(plain),
        "vae_mlp": vae.VAE(),
        "vqvae": build("vqvae", channels=3),
        "vqvae_ema": build("vqvae_ema", channels=3),
        "autoencoder_kl": build("autoencoder_kl", **full),
        "dvae": dvae.DVAE(),
    }
    return {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}


def main() -> None:
    """Writes the file; images are drawn again where float32 gives other gradients, near kinks."""
    import torch

    kept: dict[str, np.ndarray] = {"published": np.array(json.dumps(published()))}
    for name in CASES:
        for draw in range(40):
            # pythae's quantizers make numbers of this kind, whatever they are given.
            with unittest.mock.patch.object(torch, "float", torch.float64):
                exact = outcome(name, draw, torch.float64)
            single = outcome(name, draw, torch.float32)["norms"]
            if np.allclose(single, exact["norms"], 1e-4, 1e-6 * single.max()):
                break
        else:
            raise RuntimeError(f"{name}: float32 is unlike float64 on every image.")
        print(f"{name}: draw {draw}, loss {float(exact['part/loss']):.4f}")
        for key, array in exact.items():
            kept[f"{name}/{key}"] = np.float32(array) if array.dtype == np.float64 else array
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes; {kept['published']}")


if __name__ == "__main__":
    main()
