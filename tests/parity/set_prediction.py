"""DETR and YOLOS beside transformers' `DetrForObjectDetection` and `YolosForObjectDetection`.

    python tests/parity/set_prediction.py

writes tests/parity/golden/set_prediction.npz: of each case some logits and boxes, what the
reference's image processor makes of them and of those of photographs, the losses of a training
step, some of every parameter's gradient and its norm, and the names and shapes of its state_dict.
See README.md for the environment.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, image, photographs, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "set_prediction.npz"
OUTPUTS, GRADIENTS = 240, 6  # values kept of an output, and of each parameter's gradient
CLASSES = 5


@dataclass(frozen=True)
class Case:
    """One network on one batch.

    Attributes:
      model: the registry's name.
      options: for `models.create`.
      image: [b, c, h, w].
      objects: of each image.
    """

    model: str
    options: Mapping[str, Any]
    image: tuple[int, ...]
    objects: tuple[int, ...]


_DETR = {
    "encoder": "resnet18",
    "width": 32,
    "num_heads": 4,
    "hidden": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "queries": 8,
    "dropout": 0.0,
}
_YOLOS = {"width": 24, "depth": 3, "num_heads": 2, "queries": 6}
CASES = {
    "detr": Case(
        "detr_resnet50",
        {**_DETR, "encoder_options": {"depths": (1, 1, 1, 1)}},
        (3, 3, 64, 96),
        (3, 0, 2),
    ),
    # By timm's ResNet, as published.
    "detr_dc5": Case(
        "detr_resnet50_dc5",
        {**_DETR, "encoder_options": {"depths": (1, 1, 1, 1), "output_stride": 16}},
        (1, 3, 64, 64),
        (2,),
    ),
    # Positions of 3x5 patches on 4x6.
    "yolos": Case("yolos_small", {**_YOLOS, "grid": (3, 5)}, (2, 3, 64, 96), (2, 4)),
    "yolos_tiny": Case(
        "yolos_tiny",
        {**_YOLOS, "depth": 2, "grid": (2, 3), "middle_positions": False},
        (1, 3, 32, 48),
        (3,),
    ),
}


def objects(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(labels [n], boxes [n, 4]) of each image; (centre, width, height) in parts of its sides."""
    found = []
    for index, count in enumerate(CASES[name].objects):
        draw = (_uniform(f"objects {index} of {name}", (count, 5)) + 1) / 2
        sides = 0.1 + 0.4 * draw[:, 2:4]
        middle = sides / 2 + draw[:, :2] * (1 - sides)
        labels = (draw[:, 4] * CLASSES).astype(np.int64)
        found.append((labels, np.concatenate([middle, sides], 1).astype(np.float32)))
    return found


def build(name: str) -> Any:
    """The reference, without weights."""
    from parity.references import first_blocks, transformers

    package, case = transformers(), CASES[name]
    given = case.options
    if name.startswith("yolos"):
        return package.YolosForObjectDetection(
            package.YolosConfig(
                hidden_size=given["width"],
                num_hidden_layers=given["depth"],
                num_attention_heads=given["num_heads"],
                intermediate_size=4 * given["width"],
                image_size=[16 * side for side in given["grid"]],
                num_detection_tokens=given["queries"],
                use_mid_position_embeddings=given.get("middle_positions", True),
                num_labels=CLASSES,
            )
        )
    if name == "detr_dc5":
        backbone: dict[str, Any] = {"backbone": "resnet18", "dilation": True}
    else:
        resnet = package.ResNetConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[64, 128, 256, 512],
            layer_type="basic",
            out_features=["stage4"],
        )
        backbone = {"use_timm_backbone": False, "backbone": None, "backbone_config": resnet}
    network = package.DetrForObjectDetection(
        package.DetrConfig(
            use_pretrained_backbone=False,
            d_model=given["width"],
            encoder_attention_heads=given["num_heads"],
            decoder_attention_heads=given["num_heads"],
            encoder_ffn_dim=given["hidden"],
            decoder_ffn_dim=given["hidden"],
            encoder_layers=given["encoder_layers"],
            decoder_layers=given["decoder_layers"],
            num_queries=given["queries"],
            dropout=0.0,
            num_labels=CLASSES,
            **backbone,
        )
    )
    if name == "detr_dc5":
        first_blocks(network.model.backbone.model)
    return network


def prepared(name: str) -> Any:
    """The reference with deterministic weights; frozen batch norms have gradients, too."""
    import torch

    torch.set_num_threads(1)
    network = build(name)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    return network


def tensors(network: Any) -> dict[str, Any]:
    """Parameters, and the buffers that are parameters of ours."""
    statistics = ("running_mean", "running_var")
    state = network.state_dict(keep_vars=True)
    return {key: value for key, value in sorted(state.items()) if not key.endswith(statistics)}


def losses(network: Any, x: Any, truth: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses of all layers as the authors train them: only what is predicted from is normalised.

    transformers, asked for auxiliary losses, gives the normalised output of a layer to the next.
    """
    import torch

    decoder = getattr(getattr(network, "model", None), "decoder", None)
    layers: list[torch.Tensor] = []
    for layer in decoder.layers if decoder else ():
        layer.register_forward_hook(lambda module, given, output: layers.append(output))
    output = network(x)
    stacked = [None, None]
    if decoder:
        network.config.auxiliary_loss = True
        vectors = decoder.layernorm(torch.stack(layers))
        stacked = [
            network.class_labels_classifier(vectors),
            network.bbox_predictor(vectors).sigmoid(),
        ]
    total, parts, _ = network.loss_function(
        output.logits, truth, x.device, output.pred_boxes, network.config, *stacked
    )
    kept = {key: value for key, value in parts.items() if not key.startswith("cardinality")}
    return {"total": total, **{key.removeprefix("loss_"): value for key, value in kept.items()}}


def outcome(name: str, draw: int, dtype: Any) -> dict[str, np.ndarray]:
    """What is compared of a case, on the n-th draw of its images, computed in `dtype`."""
    import torch
    from parity.references import transformers

    case, network = CASES[name], prepared(name).eval().to(dtype)
    x = torch.from_numpy(image(case.image, draw)).to(dtype)
    with torch.no_grad():
        output = network(x)
        on_photographs = network(torch.from_numpy(photographs(case.image)).to(dtype))
    size = [case.image[2:]] * case.image[0]
    decode = transformers().DetrImageProcessor().post_process_object_detection
    decoded, seen = decode(output, -1.0, size), decode(on_photographs, -1.0, size)
    found = {
        "draw": np.array(draw),
        "logits": sample(output.logits.numpy(), OUTPUTS),
        "raw_boxes": sample(output.pred_boxes.numpy(), OUTPUTS),
    }
    for key in ("boxes", "scores", "labels"):
        found[key] = np.stack([row[key].numpy() for row in decoded])
        found[f"photographs/{key}"] = np.stack([row[key].numpy() for row in seen])
    learnt = tensors(network)
    for value in learnt.values():
        value.requires_grad_()
    truth = [
        {"class_labels": torch.from_numpy(labels), "boxes": torch.from_numpy(boxes).to(dtype)}
        for labels, boxes in objects(name)
    ]
    torch.set_default_dtype(dtype)  # of the weights of classes
    values = losses(network, x, truth)
    torch.set_default_dtype(torch.float32)
    values["total"].backward()
    found |= {f"loss/{key}": value.detach().numpy() for key, value in values.items()}
    gradients = [value.grad.numpy() for value in learnt.values()]
    found["norms"] = np.array([np.linalg.norm(value) for value in gradients])
    found["gradients"] = np.concatenate([sample(value, GRADIENTS) for value in gradients])
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    return found | {"shapes": np.array(json.dumps(shapes))}


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
        scores = -np.sort(-exact["photographs/scores"], axis=1)
        if (scores[:, :-1] - scores[:, 1:]).min() < 1e-5:
            raise RuntimeError(f"{name}: rounding decides the order of photographs' detections.")
        print(f"{name}: draw {draw}, loss {float(exact['loss/total']):.4f}")
        for key, value in exact.items():
            kept[f"{name}/{key}"] = np.float32(value) if value.dtype == np.float64 else value
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
