"""Generative adversarial learning beside PyTorch: StyleGAN2's networks, and steps of training.

    python tests/parity/adversarial.py

writes tests/parity/golden/adversarial.npz. StyleGAN2's networks are basicsr's (1.4.2, whose folder
must be on the path; nothing of it is compiled), DCGAN's tests/parity/networks/dcgan.py. Of networks
are kept some outputs, gradients and the shapes of the state_dict; of one alternating step the
losses and parts of all parameters after it. What is drawn is decided by its shape: see `normal`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "adversarial.npz"
SIZE, LATENT, LAYERS, NARROW, BATCH = 16, 8, 2, 1 / 64, 4
CHANGE = 2  # the first style of an image that is another one's
TRUNCATION = 0.6
OUTPUTS, GRADIENTS = 64, 8
RATE = 1e-3  # of gradient descent
# Weights of what is learnt lazily, and when it is.
R1, R1_EVERY, PATH, PATH_EVERY, SHRINK, DECAY = 10.0, 16, 2.0, 4, 2, 0.01
MEAN_LENGTH = 0.3


def normal(shape: tuple[int, ...]) -> np.ndarray:
    """What stands in for a draw of this shape, [b, ...], images NHWC."""
    return _uniform(f"normal {shape}", shape) * np.float32(1.5)


def noises(count: int) -> list[np.ndarray]:
    """Noise of each layer, [b, h, w, 1]; another one for each."""
    sides = (4, *(4 * 2**i for i in (1, 2) for _ in range(2)))
    return [normal((count, side, side, 1)) * (1 + i / 10) for i, side in enumerate(sides)]


def images() -> np.ndarray:
    """Pixels, uint8 [b, h, w, c]."""
    values = _uniform("images", (BATCH, SIZE, SIZE, 3))
    return np.round(values * 100 + 127).astype(np.uint8)


def _torch(array: np.ndarray) -> Any:
    import torch

    array = np.moveaxis(array, -1, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(array)).double()


def _filled(network: Any, name: str, found: dict[str, np.ndarray]) -> Any:
    import torch

    kept = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    with torch.no_grad():
        for key, value in kept.items():
            value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    found[f"{name}/shapes"] = np.array(json.dumps({k: list(v.shape) for k, v in kept.items()}))
    return network.double()


def _parts(tensors: dict[str, Any]) -> np.ndarray:
    parts = [sample(tensors[key].detach().numpy(), GRADIENTS) for key in sorted(tensors)]
    return np.concatenate(parts).astype(np.float32)


def _gradients(network: Any) -> np.ndarray:
    return _parts({key: value.grad for key, value in network.named_parameters()})


def stylegan2(found: dict[str, np.ndarray]) -> tuple[Any, Any]:
    from parity.references import stylegan2 as reference

    module = reference()
    generator = module.StyleGAN2Generator(SIZE, LATENT, LAYERS, 2, narrow=NARROW)
    discriminator = module.StyleGAN2Discriminator(SIZE, 2, narrow=NARROW)
    return _filled(generator, "generator", found), _filled(discriminator, "discriminator", found)


def networks(found: dict[str, np.ndarray]) -> None:
    generator, discriminator = stylegan2(found)
    one = _torch(normal((BATCH, LATENT)))
    two = one.flip(0) * 1.1
    noise = [_torch(x) for x in noises(BATCH)]
    image, _ = generator([one], randomize_noise=False)
    found["stored noise"] = sample(image.detach().numpy(), OUTPUTS)
    mean = generator.style_mlp(two).mean(0, keepdim=True)
    image, _ = generator([one], noise=noise, truncation=TRUNCATION, truncation_latent=mean)
    found["truncated"] = sample(image.detach().numpy(), OUTPUTS)
    image, _ = generator([one, two], noise=noise, inject_index=CHANGE)
    found["mixed"] = sample(image.detach().numpy(), OUTPUTS)
    image.square().sum().backward()
    found["generator/gradient"] = _gradients(generator)
    logits = discriminator(_torch(images() / 127.5 - 1))
    found["logits"] = logits.detach().numpy()[:, 0]
    logits.square().sum().backward()
    found["discriminator/gradient"] = _gradients(discriminator)


def step(name: str, found: dict[str, np.ndarray], lazily: bool) -> None:
    """One alternating step; the first step of a training, at which all that is lazy is due."""
    import torch
    from torch.nn.functional import softplus

    if lazily:
        generator, discriminator = stylegan2({})
        start = _torch(normal((BATCH, LATENT)))
        noise = [_torch(x) for x in noises(BATCH)]

        def fake() -> Any:
            return generator([start], noise=noise)[0]
    else:
        from parity.networks.dcgan import Discriminator, Generator

        generator = _filled(Generator(SIZE, 3, LATENT, 3), f"{name} generator", found)
        discriminator = _filled(Discriminator(SIZE, 3, 4), f"{name} discriminator", found)

        def fake() -> Any:
            return generator(_torch(normal((BATCH, LATENT))))

    optimizers = [torch.optim.SGD(x.parameters(), RATE) for x in (generator, discriminator)]
    of_generator, of_discriminator = optimizers
    real = _torch(images() / 127.5 - 1)

    def update(optimizer: Any, loss: Any) -> None:
        for one in optimizers:
            one.zero_grad()
        loss.backward()
        optimizer.step()

    # The order of passes is ours, for the running statistics of batch norms.
    generated = fake()
    loss = (
        softplus(-discriminator(real)).mean() + softplus(discriminator(generated.detach())).mean()
    )
    losses = {"discriminator_loss": loss.item()}
    update(of_discriminator, loss)
    if lazily:
        real.requires_grad_(True)
        (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()
        losses["gradient_penalty"] = penalty.item()
        update(of_discriminator, R1 / 2 * R1_EVERY * penalty)
    loss = softplus(-discriminator(fake())).mean()
    losses["generator_loss"] = loss.item()
    update(of_generator, loss)
    if lazily:
        rows = BATCH // SHRINK
        style = generator.style_mlp(_torch(normal((rows, LATENT))))
        styles = style[:, None].repeat(1, generator.num_latent, 1)
        noise = [_torch(x) for x in noises(rows)]
        image, styles = generator([styles], input_is_latent=True, noise=noise, return_latents=True)
        direction = _torch(normal((rows, SIZE, SIZE, 3))) / SIZE
        (slope,) = torch.autograd.grad((image * direction).sum(), styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        mean = MEAN_LENGTH + DECAY * (lengths.mean() - MEAN_LENGTH)
        losses["path_length"], losses["mean"] = lengths.mean().item(), mean.item()
        update(of_generator, PATH * PATH_EVERY * (lengths - mean).square().mean())
    found[f"{name}/losses"] = np.array(json.dumps(losses))
    for part, network in (("generator", generator), ("discriminator", discriminator)):
        state = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
        found[f"{name}/{part}"] = _parts({k: v for k, v in state.items() if "noises" not in k})


def main() -> None:
    import torch

    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    networks(found)
    step("stylegan2", found, lazily=True)
    step("dcgan", found, lazily=False)
    kept = {k: v if v.dtype.kind == "U" else np.float32(v) for k, v in found.items()}
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
