"""Runs the references of detectors and writes what tests/models/test_detectors.py compares with.

    python tests/parity/generate_detectors.py [CASE ...]

All cases, if none is named. See tests/parity/README.md for the environment; the operators of
torchvision are compiled, or TORCHVISION_OPERATORS names a folder with a module `tv_stub` of them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from parity import detectors
from parity.detectors import GOLDEN, GRADIENTS, OUTPUTS, STATISTICS, Case
from parity.deterministic import _uniform, image, sample


def filled(network: torch.nn.Module, case: Case) -> torch.nn.Module:
    """In float64, with weights that names decide, and nothing dropped."""
    network = network.double()
    state = network.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(case.weights(name, tuple(value.shape)))))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network


def objects(case: Case) -> list[dict[str, torch.Tensor]]:
    found = detectors.targets(case)
    names = {"boxes": "boxes", "box_label": "labels", "keypoints": "keypoints"}
    listed = []
    for k, count in enumerate(case.boxes):
        one = {v: torch.from_numpy(found[n][k, :count]) for n, v in names.items() if n in found}
        one["boxes"], one["labels"] = one["boxes"].double(), one["labels"].long()
        if case.masks:
            bits = found["instance_masks"][k, :count]
            mask = np.unpackbits(bits, axis=-1, count=case.image[3])
            one["masks"] = torch.from_numpy(mask)
        if case.stuff:
            one["segmentation"] = torch.from_numpy(found["segmentation"][k])
        listed.append(one)
    return listed


def padded(values: list[torch.Tensor], count: int) -> np.ndarray:
    """[b, count, ...], with zeros."""
    return np.stack(
        [np.pad(v[:count], [(0, max(0, count - len(v)))] + [(0, 0)] * (v.ndim - 1)) for v in values]
    )


def rows_of(detected: list[dict[str, Any]], case: Case) -> dict[str, np.ndarray]:
    """What was detected in each image, padded."""
    found = {"count": np.array([len(one["scores"]) for one in detected])}
    for key in ("boxes", "scores", "labels", "keypoints"):
        if key in detected[0]:
            values = [one[key].numpy() for one in detected]
            found[key] = padded(values, case.detections)
    if case.masks:  # many numbers: some of each image
        masks = padded([one["masks"].numpy() for one in detected], case.detections)
        found["masks"] = np.stack([sample(image, OUTPUTS) for image in masks])
    return found


def on_photographs(family: Any, network: torch.nn.Module, case: Case) -> dict[str, np.ndarray]:
    """What is detected in photographs.

    Raises:
      RuntimeError: nothing in one of them, or rounding may decide what and in which order: it is
        not the same in photographs that differ in their fifth digit.
    """
    x = detectors.photographs(case)
    found = rows_of(family.detections(network, torch.from_numpy(x).double()), case)
    if not found["count"].all():
        raise RuntimeError(f"Nothing is detected in a photograph: {found['count']}.")
    for draw in range(4):
        noise = 1e-5 * _uniform(f"noise {draw}", x.shape)
        near = rows_of(family.detections(network, torch.from_numpy(x + noise).double()), case)
        for key, value in found.items():
            error = np.abs(near[key] - value).max() / max(1, np.abs(value).max())
            if error > (0 if key in ("count", "labels") else 1e-2):
                raise RuntimeError(f"Rounding decides {key} of photographs: {error:.1e}.")
    return found


def outcome(family: Any, name: str, case: Case) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    network = filled(family.build(name, case), case)
    x = torch.from_numpy(image(case.image)).double()
    parameters = dict(sorted(network.named_parameters()))
    shapes = {key: list(value.shape) for key, value in parameters.items()}
    state = sorted(network.state_dict().items())
    running = {k: v for k, v in state if k not in parameters and v.is_floating_point()}
    found: dict[str, Any] = {
        "shapes": json.dumps(shapes),
        "statistics_shapes": json.dumps({key: list(value.shape) for key, value in running.items()}),
    }
    for key, value in family.heads(network, x).items():
        found[f"heads/{key}"] = sample(value.numpy(), OUTPUTS)
        found[f"heads_shape/{key}"] = value.shape
    detected = rows_of(family.detections(network, x), case)
    found |= {f"detections/{key}": value for key, value in detected.items()}
    if not case.saturated:
        detected = on_photographs(family, network, case)
        found |= {f"photographs/{key}": value for key, value in detected.items()}
    losses = family.losses(network, x, objects(case))
    for key, value in losses.items():
        found[f"losses/{key}"] = value.item()
    gradients = torch.autograd.grad(
        sum(losses.values()), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    values = [gradient.numpy() for gradient in gradients]
    found["norms"] = [np.linalg.norm(value) for value in values]
    found["gradients"] = np.concatenate([sample(value, GRADIENTS) for value in values])
    statistics = [sample(value.numpy(), STATISTICS) for value in running.values()]
    found["statistics"] = np.concatenate([[], *statistics])
    arrays = {key: np.asarray(value) for key, value in found.items()}
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}


def main() -> None:
    for family in detectors.families().values():
        for name, case in family.CASES.items():
            if len(sys.argv) > 1 and name not in sys.argv[1:]:
                continue
            found = outcome(family, name, case)
            np.savez_compressed(GOLDEN / f"{name}.npz", **found)
            size = (GOLDEN / f"{name}.npz").stat().st_size
            losses = {k: float(v) for k, v in found.items() if k.startswith("losses/")}
            counts = [found.get(f"{k}/count") for k in ("detections", "photographs")]
            print(f"{name}: {counts} detections, {losses}, {size} bytes")


if __name__ == "__main__":
    main()
