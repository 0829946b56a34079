"""Networks whose outputs are no maps of classes, beside their PyTorch references.

    python tests/parity/task_networks.py

writes tests/parity/golden/task_networks.npz: of each case some outputs in evaluation and training,
some of the gradient of the squared outputs in training and its norms, and the shapes of its
state_dict. See README.md for the environment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "task_networks.npz"
# By name: the shape of the input in PyTorch's layout.
CASES: dict[str, tuple[int, ...]] = {
    "generator_16": (4, 5),
    "generator_28": (3, 5),
    "discriminator_16": (4, 1, 16, 16),
    "localizer": (2, 3, 32, 32),
    "srresnet_2": (2, 3, 10, 13),
    "srresnet_4": (2, 3, 10, 13),
    "msrresnet_3": (2, 3, 10, 13),
    "msrresnet_4": (2, 3, 10, 13),
    "srgan_discriminator": (3, 3, 32, 32),
    "dino_head": (6, 7),
    "dino_head_norm": (6, 7),
}


OUTPUTS, GRADIENTS = 64, 8  # values kept of an output, and of each parameter's gradient


def given(name: str) -> np.ndarray:
    """The input of a case, float32."""
    return _uniform(f"input of {name}", CASES[name])


def references() -> dict[str, Any]:
    from parity.networks.dcgan import Discriminator, Generator
    from parity.networks.dino import DinoHead
    from parity.networks.localizer import Localizer
    from parity.networks.srgan import Discriminator as SrganDiscriminator
    from parity.references import basicsr

    MSRResNet = basicsr("srresnet_arch").MSRResNet
    from torch_enhance.models import SRResNet  # it imports torchvision, which is ready now

    return {
        "generator_16": Generator(16, 2, 5, 3),
        "generator_28": Generator(28, 1, 5, 3),
        "discriminator_16": Discriminator(16, 1, 4),
        "localizer": Localizer(5, 32, 1, 8),
        "srresnet_2": SRResNet(2, num_blocks=2),
        "srresnet_4": SRResNet(4, num_blocks=1),
        "msrresnet_3": MSRResNet(num_feat=5, num_block=1, upscale=3),
        "msrresnet_4": MSRResNet(num_feat=5, num_block=2, upscale=4),
        "srgan_discriminator": SrganDiscriminator(32, width=3, hidden=7),
        "dino_head": DinoHead(7, 11, 9, 4, norm=False),
        "dino_head_norm": DinoHead(7, 11, 9, 4, norm=True),
    }


def main() -> None:
    import torch

    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    for name, network in references().items():
        state = network.state_dict()
        kept = {key: value for key, value in state.items() if value.is_floating_point()}
        with torch.no_grad():
            for key, value in kept.items():
                value.copy_(torch.from_numpy(weights(key, tuple(value.shape))))
        network.double()
        x = torch.from_numpy(given(name)).double()
        shapes = {key: list(value.shape) for key, value in kept.items()}
        found[f"{name}/shapes"] = np.array(json.dumps(shapes))
        for mode in ("eval", "train"):
            network.train(mode == "train")
            output = network(x)
            found[f"{name}/{mode}"] = sample(output.detach().numpy(), OUTPUTS).astype(np.float32)
        output.square().sum().backward()
        gradients = {key: value.grad.numpy() for key, value in network.named_parameters()}
        norms = [np.linalg.norm(gradients[key]) for key in sorted(gradients)]
        parts = [sample(gradients[key], GRADIENTS) for key in sorted(gradients)]
        found[f"{name}/norms"] = np.float32(norms)
        found[f"{name}/gradient"] = np.concatenate(parts).astype(np.float32)
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
