"""Captioning networks beside their PyTorch references of `networks/captioning.py`.

    python tests/parity/captioning.py

writes tests/parity/golden/captioning.npz: of each case some logits in evaluation, what else has a
loss, the loss of a training step, some of every parameter's gradient and its norm, and the names
and shapes of its state_dict. See README.md for the environment.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import image, labels, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "captioning.npz"
OUTPUTS, GRADIENTS = 60, 4  # values kept of an output, and of each parameter's gradient
CLASSES, TOKENS = 11, 6

_CNN = {"encoder": "resnet18", "encoder_options": {"depths": (1, 1, 1, 1)}}
_RNN = {**_CNN, "width": 12, "hidden": 20, "dropout": 0.0}
_SAT = {**_RNN, "attention_width": 10}
_DECODER = {"width": 24, "depth": 2, "num_heads": 2, "hidden": 32, "dropout": 0.0}
_VIT = {
    "encoder": "vit_tiny_patch16_224",
    "encoder_options": {"depth": 1, "width": 16, "num_heads": 2},
    "max_tokens": 9,
}


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      model: the registry's name.
      options: for `models.create`.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "nic": Case("nic", _RNN),
    "cnn_rnn": Case("cnn_rnn", _RNN),
    "show_attend_tell": Case("show_attend_tell", _SAT),
    "hard_attention": Case("hard_attention", {**_SAT, "soft_share": 0.0}),
    "cnn_self_attention": Case("cnn_self_attention", _SAT),
    "cnn_transformer": Case("cnn_transformer", {**_CNN, **_DECODER}),
    "vit_transformer": Case("vit_transformer", {**_VIT, **_DECODER}),
    "vit_transformer_pre_norm": Case(
        "vit_transformer", {**_VIT, **_DECODER, "width": 16, "pre_norm": True}
    ),
}
IMAGE = (3, 3, 64, 96)


def tokens() -> np.ndarray:
    """Words, [b, t + 1]; the last one is only predicted."""
    return labels((IMAGE[0], TOKENS + 1), CLASSES)


def build(name: str) -> Any:
    """The reference, without weights."""
    from parity.networks import captioning
    from parity.references import first_blocks, timm, torchvision
    from torch import nn

    case, classes = CASES[name], CLASSES
    own = case.options
    if own["encoder"].startswith("vit"):
        inside = own["encoder_options"]
        encoder = timm().models.vision_transformer.VisionTransformer(
            img_size=IMAGE[2:],
            num_classes=0,
            global_pool="",
            embed_dim=inside["width"],
            depth=inside["depth"],
            num_heads=inside["num_heads"],
        )
        features = inside["width"]
    else:
        resnet = torchvision().models.resnet18(weights=None)
        first_blocks(resnet)
        encoder = resnet
        resnet.avgpool, resnet.fc = nn.Identity(), nn.Identity()
        resnet.forward = lambda x: _map(resnet, x)
        features = 512
    if "depth" in own:
        return captioning.TransformerCaptioner(
            encoder,
            features,
            classes,
            *(own[key] for key in ("width", "depth", "num_heads", "hidden")),
            own.get("max_tokens", 0),
            own.get("pre_norm", False),
        )
    widths = own["width"], own["hidden"]
    if case.model == "nic":
        return captioning.Nic(encoder, features, classes, *widths)
    if case.model == "cnn_rnn":
        return captioning.CnnRnn(encoder, features * 6, classes, *widths)
    if case.model == "cnn_self_attention":
        return captioning.CnnSelfAttention(encoder, features, classes, *widths, 10)
    hard = case.model == "hard_attention"
    return captioning.ShowAttendTell(encoder, features, classes, *widths, 10, hard)


def _map(resnet: Any, x: Any) -> Any:
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    return resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))


def total(found: Mapping[str, Any], nll: Any) -> Any:
    """The loss of what a network returns in training: of words, and of where it looked."""
    loss = nll
    if "attention" in found:
        loss = loss + ((1 - found["attention"].sum(1)) ** 2).sum(-1).mean()
    if "attention_entropy" in found:
        loss = loss - found["attention_log_probability"].mean()
        loss = loss + 2 * found["attention_entropy"].mean()
    return loss


def outcome(name: str, draw: int, dtype: Any) -> dict[str, np.ndarray]:
    """What is compared of a case, on the n-th draw of its images, computed in `dtype`."""
    import torch

    torch.set_num_threads(1)
    network = build(name)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    network = network.to(dtype).eval()
    x = torch.from_numpy(image(IMAGE, draw)).to(dtype)
    said = torch.from_numpy(tokens())
    with torch.no_grad():
        evaluated = network(x, said[:, :-1])
    network.train()
    trained = network(x, said[:, :-1])
    nll = torch.nn.functional.cross_entropy(trained["logits"].flatten(0, 1), said[:, 1:].flatten())
    loss = total(trained, nll)
    loss.backward()
    parameters = dict(network.named_parameters())
    gradients = [value.grad.numpy() for value in parameters.values()]
    found = {"draw": np.array(draw), "loss": loss.detach().numpy()}
    found["logits"] = sample(evaluated["logits"].numpy(), OUTPUTS)
    for key, value in trained.items():
        found[f"trained/{key}"] = sample(value.detach().numpy(), OUTPUTS)
    found["norms"] = np.array([np.linalg.norm(value) for value in gradients])
    found["gradients"] = np.concatenate([sample(value, GRADIENTS) for value in gradients])
    state = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
    found["shapes"] = np.array(json.dumps({key: list(v.shape) for key, v in state.items()}))
    found["learnt"] = np.array(json.dumps(list(parameters)))
    return found


def main() -> None:
    """Writes the file; images are drawn again where float32 gives other gradients, near kinks."""
    import torch

    kept: dict[str, np.ndarray] = {}
    for name in CASES:
        for draw in range(20):
            exact = outcome(name, draw, torch.float64)
            single = outcome(name, draw, torch.float32)["norms"]
            if np.allclose(single, exact["norms"], 1e-4, 1e-6 * single.max()):
                break
        else:
            raise RuntimeError(f"{name}: float32 is unlike float64 on every image.")
        print(f"{name}: draw {draw}, loss {float(exact['loss']):.4f}")
        for key, value in exact.items():
            kept[f"{name}/{key}"] = np.float32(value) if value.dtype == np.float64 else value
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
