"""Two steps of DINO and of MoCo v3 in PyTorch, as their authors train.

    python tests/parity/self_supervised.py

writes tests/parity/golden/self_supervised.npz: losses, parts of all gradients, the teacher, the
student and the centre after two steps of gradient descent, on timm's ViT. See README.md for the
environment. Sources read: facebookresearch/dino (main_dino.py), facebookresearch/moco-v3
(moco/builder.py, main_moco.py).
"""

import json
import math
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "self_supervised.npz"
BATCH, SIZE, LOCAL, STEPS, TOTAL, RATE = 16, 8, 4, 2, 4, 0.05
MOMENTUM, KEPT = 0.7, 6
VIT = {"patch_size": 4, "depth": 2, "num_heads": 2}
WIDTH, HIDDEN, BOTTLENECK, PROTOTYPES = 8, 12, 6, 10
# DINO's teacher goes from the first temperature to the other in half of the training, and its
# prototypes rest for a quarter: in the first step.
FIRST, LAST, WARMUP, FROZEN, STUDENT, CENTER = 0.04, 0.07, 0.5, 0.25, 0.1, 0.9
TEMPERATURE = 0.2  # of MoCo v3


def views(name: str, count: int, side: int) -> np.ndarray:
    """uint8 [b, v, h, w, c]."""
    values = _uniform(f"views {name}", (BATCH, count, side, side, 3))
    return np.round(values * 100 + 127).astype(np.uint8)


def batches() -> list[dict[str, np.ndarray]]:
    return [
        {
            "views_global": views(f"global {step}", 2, SIZE),
            "views_local": views(f"local {step}", 3, LOCAL),
        }
        for step in range(STEPS)
    ]


def _ready(array: np.ndarray) -> list[Any]:
    """Each view, normalised by 0.5 and 0.25."""
    import torch

    pixels = torch.from_numpy(np.moveaxis(array, -1, 2)).double() / 255
    return list(((pixels - 0.5) / 0.25).unbind(1))


def _cosine(start: float, step: int) -> float:
    return 1 + (start - 1) * (1 + math.cos(math.pi * step / TOTAL)) / 2


def _filled(network: Any, name: str, found: dict[str, np.ndarray]) -> Any:
    import torch

    state = network.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.from_numpy(weights(key, tuple(value.shape))))
    shapes = {key: list(value.shape) for key, value in state.items()}
    found[f"{name}/shapes"] = np.array(json.dumps(shapes))
    return network.double()


def _vit() -> Any:
    from parity.references import timm

    return timm().models.vision_transformer.VisionTransformer(
        img_size=SIZE, embed_dim=WIDTH, num_classes=0, dynamic_img_size=True, **VIT
    )


def _parts(tensors: dict[str, Any]) -> np.ndarray:
    parts = [sample(tensors[key].detach().numpy(), KEPT) for key in sorted(tensors)]
    return np.concatenate(parts).astype(np.float32)


def _gradients(network: Any) -> np.ndarray:
    return _parts({key: value.grad for key, value in network.named_parameters()})


def _move(teacher: Any, student: Any, momentum: float) -> None:
    import torch

    with torch.no_grad():
        for old, new in zip(teacher.parameters(), student.parameters()):
            old.mul_(momentum).add_((1 - momentum) * new)


def dino(found: dict[str, np.ndarray]) -> None:
    import torch
    from parity.networks.dino import DinoHead
    from torch import nn
    from torch.nn.functional import log_softmax, softmax

    student = nn.ModuleDict(
        {"backbone": _vit(), "head": DinoHead(WIDTH, PROTOTYPES, HIDDEN, BOTTLENECK, False)}
    )
    student = _filled(student, "dino", found)
    teacher = deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), RATE)
    center, losses = torch.zeros(1, PROTOTYPES).double(), []
    for step, batch in enumerate(batches()):
        crops = _ready(batch["views_global"]), _ready(batch["views_local"])
        temperature = FIRST + min(1.0, step / TOTAL / WARMUP) * (LAST - FIRST)
        with torch.no_grad():
            taught = [teacher["head"](teacher["backbone"](crop)) for crop in crops[0]]
        said = [student["head"](student["backbone"](crop)) for part in crops for crop in part]
        total, terms = 0.0, 0
        for t, target in enumerate(taught):
            target = softmax((target - center) / temperature, -1)
            for s, output in enumerate(said):
                if s != t:
                    total = total - (target * log_softmax(output / STUDENT, -1)).sum(-1).mean()
                    terms += 1
        loss = total / terms
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if step / TOTAL < FROZEN:
            for parameter in student["head"].last_layer.parameters():
                parameter.grad.zero_()
        found[f"dino/gradient {step}"] = _gradients(student)
        optimizer.step()
        _move(teacher, student, _cosine(MOMENTUM, step))
        center = center * CENTER + torch.cat(taught).mean(0, keepdim=True) * (1 - CENTER)
    found["dino/losses"], found["dino/center"] = np.float32(losses), center.numpy()[0]
    found["dino/student"] = _parts(student.state_dict())
    found["dino/teacher"] = _parts(teacher.state_dict())


def mocov3(found: dict[str, np.ndarray]) -> None:
    import torch
    from parity.networks.mocov3 import Projection
    from torch import nn
    from torch.nn.functional import cross_entropy, normalize

    encoder = {"backbone": _vit(), "head": Projection(WIDTH, 3, HIDDEN, BOTTLENECK)}
    predictor = Projection(BOTTLENECK, 2, HIDDEN, BOTTLENECK)
    student = _filled(nn.ModuleDict({**encoder, "predictor": predictor}), "mocov3", found)
    teacher = nn.ModuleDict({name: deepcopy(student[name]) for name in encoder})
    optimizer = torch.optim.SGD(student.parameters(), RATE)
    losses = []
    for step, batch in enumerate(batches()):
        crops = _ready(batch["views_global"])
        queries = [
            student["predictor"](student["head"](student["backbone"](crop))) for crop in crops
        ]
        momentum = _cosine(MOMENTUM, step)
        for name in encoder:
            _move(teacher[name], student[name], momentum)
        with torch.no_grad():
            keys = [teacher["head"](teacher["backbone"](crop)) for crop in crops]
        loss = 0.0
        for query, key in zip(queries, keys[::-1]):
            logits = normalize(query, dim=1) @ normalize(key, dim=1).T / TEMPERATURE
            loss = loss + cross_entropy(logits, torch.arange(BATCH)) * 2 * TEMPERATURE
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        found[f"mocov3/gradient {step}"] = _gradients(student)
        optimizer.step()
    found["mocov3/losses"] = np.float32(losses)
    found["mocov3/student"] = _parts(student.state_dict())
    found["mocov3/teacher"] = _parts(teacher.state_dict())


def main() -> None:
    import torch

    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    dino(found)
    mocov3(found)
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
