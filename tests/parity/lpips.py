"""LPIPS beside the package of its authors (lpips 0.1.4), with deterministic weights.

    python tests/parity/lpips.py

writes tests/parity/golden/lpips.npz: of each network the distances of two pairs of images, and a
part of the gradient by the first images. See README.md for the environment.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "lpips.npz"
NETS = ("alex", "squeeze", "vgg")
SIZE, GRADIENTS = 64, 32


def pairs() -> list[np.ndarray]:
    """Two batches of images in 0..1, NHWC."""
    return [_uniform(f"images of lpips {i}", (2, SIZE, SIZE, 3)) / 2 + 0.5 for i in range(2)]


def weight(index: int, channels: int) -> np.ndarray:
    """Of the channels of a layer, none below 0."""
    return np.abs(weights(f"lin{index}.model.1.weight", (1, channels, 1, 1)))


def main() -> None:
    sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).parent]
    import torch
    from parity.references import torchvision

    torchvision()
    import lpips

    torch.set_num_threads(1)
    found = {}
    for net in NETS:
        network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False).double()
        with torch.no_grad():
            for slice_ in range(1, network.net.N_slices + 1):
                for key, value in getattr(network.net, f"slice{slice_}").named_parameters():
                    name = f"features.{key}"
                    value.copy_(torch.from_numpy(weights(name, tuple(value.shape))))
            for index, lin in enumerate(network.lins):
                kernel = lin.model[-1].weight
                kernel.copy_(torch.from_numpy(weight(index, kernel.shape[1])))
        a, b = (torch.from_numpy(np.moveaxis(x, -1, 1).copy()).double() for x in pairs())
        a.requires_grad_(True)
        distance = network(a, b, normalize=True)[:, 0, 0, 0]
        distance.sum().backward()
        found[net] = distance.detach().numpy().astype(np.float32)
        found[f"{net}/gradient"] = sample(np.moveaxis(a.grad.numpy(), 1, -1), GRADIENTS).astype(
            np.float32
        )
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
