"""A detector's training step or inference in one process: the worker of benchmarks/detection.py.

    python benchmarks/detection_steps.py SIDE [--keep-memory]

As benchmarks/steps.py. Images are uint8 for ours, which normalises them in the step, and of unit
range for PyTorch, whose detectors normalise them too. Weights are drawn at random; then batch norms
are given the statistics of the images, and the classifier's scores the spread, and the background
the lead, that leave suppression about as many boxes as a trained detector does. Masks stay in their
boxes on both sides: benchmarks/paste.py measures what comes after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from steps import (
    COMPILE,
    EAGER,
    LEARNING_RATE,
    MOMENTUM,
    TORCH,
    Side,
    compiled_run,
    jax_variables,
    work,
)

OBJECTS, POINTS, SHOWN = 8, 17, 100
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Detector:
    """One row.

    Attributes:
      title: as it is called in tables.
      model: the registry's name.
      classes: for `jaxvision.models.create`; PyTorch has `COCO`.
      classifier: of PyTorch's module, the layer that gives the scores; spread, lead: of its output.
      sizes: sides of the images in inference; the first is that of training, too.
      frozen: regexes of what PyTorch's module does not train.
      frozen_statistics: regexes of the batch norms that keep their statistics there.
    """

    title: str
    model: str
    classes: int
    classifier: str
    spread: float = 1.0
    lead: float = 0.0
    sizes: tuple[int, ...] = (320, 640)
    frozen: tuple[str, ...] = ()
    frozen_statistics: tuple[str, ...] = ()


COCO = 91  # classes of COCO's ids; for some networks one of them is the background
DETECTORS = {
    "fasterrcnn": Detector(
        "Faster R-CNN R50-FPN",
        "fasterrcnn_resnet50_fpn",
        COCO - 1,
        "roi_heads.box_predictor.cls_score",
        lead=5.0,
    ),
    "retinanet": Detector(
        "RetinaNet R50-FPN",
        "retinanet_resnet50_fpn",
        COCO,
        "head.classification_head.cls_logits",
        spread=0.5,
    ),
    "ssd300": Detector(
        "SSD300 VGG16",
        "ssd300_vgg16",
        COCO - 1,
        "head.classification_head.module_list.*",
        lead=7.0,
        sizes=(300,),
    ),
    "detr": Detector(
        "DETR R50",
        "detr_resnet50",
        COCO,
        "class_labels_classifier",
        frozen=("^encoder/(conv1|layer1)", r"^encoder/.*(bn\d|downsample_1)/"),
        frozen_statistics=("^encoder/",),
    ),
    "maskrcnn": Detector(
        "Mask R-CNN R50-FPN",
        "maskrcnn_resnet50_fpn",
        COCO - 1,
        "roi_heads.box_predictor.cls_score",
        lead=5.0,
    ),
    "keypointrcnn": Detector(
        "Keypoint R-CNN R50-FPN",
        "keypointrcnn_resnet50_fpn",
        1,
        "roi_heads.box_predictor.cls_score",
    ),
}


def arrays(batch: int, size: int) -> dict[str, np.ndarray]:
    """Images uint8 [b, h, w, 3], boxes [b, n, 4], labels [b, n], elliptic masks bool [b, n, h, w]
    and key points [b, n, k, 3], the same on all sides."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (batch, size // 20, size // 20, 3), np.uint8)
    image = coarse.repeat(20, 1).repeat(20, 2)
    sides = random.uniform(20, size / 2, (batch, OBJECTS, 2))
    corner = random.uniform(0, size - sides)
    boxes = np.concatenate([corner, corner + sides], -1).astype(np.float32)
    label = random.integers(1, COCO - 1, (batch, OBJECTS))
    places = np.stack(np.mgrid[:size, :size][::-1], -1) + 0.5
    middle, half = (x[:, :, None, None] for x in (corner + sides / 2, sides / 2))
    away = (((places - middle) / half) ** 2).sum(-1)
    places = corner[:, :, None] + random.random((batch, OBJECTS, POINTS, 2)) * sides[:, :, None]
    points = np.concatenate([places, np.ones_like(places[..., :1])], -1).astype(np.float32)
    return {"image": image, "boxes": boxes, "label": label, "masks": away < 1, "keypoints": points}


# -- JAX ------------------------------------------------------------------------------------------


def jax_side(
    detector: Detector, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step that returns its loss, or the scores found, on the device; what compiling told)."""
    import jax
    import jax.numpy as jnp

    from jaxvision import models
    from jaxvision.tasks.detection.task import Detection
    from jaxvision.tasks.inputs import Inputs
    from jaxvision.tasks.instances.task import Instances
    from jaxvision.train.compilation import compiler_options

    more: dict[str, Any] = {} if dtype == "float32" else {"dtype": jnp.dtype(dtype)}
    if detector.model.startswith("detr"):
        more["dropout"] = 0.0
    model = models.create(detector.model, detector.classes, **more)
    kind = Instances if hasattr(model, "PARTS") else Detection
    task = kind(model, tuple(map(str, range(detector.classes))), Inputs(MEAN, STD))
    given = arrays(batch, size)
    there = jnp.ones((batch, OBJECTS), bool)
    background = COCO - detector.classes
    if detector.classes == 1:
        given["label"], background = np.ones_like(given["label"]), 1
    data = {
        "image": jnp.asarray(given["image"]),
        "boxes": jnp.asarray(given["boxes"]),
        "box_label": jnp.asarray(given["label"] - background, jnp.int32),
        "box_valid": there,
        "box_crowd": ~there,
        "valid": jnp.ones(batch, bool),
        "instance_masks": jnp.asarray(np.packbits(given["masks"], axis=-1)),
        "mask_valid": there,
        "keypoints": jnp.asarray(given["keypoints"]),
    }

    def scores(variables: Any, data: Any) -> Any:
        return task.predict(variables, data, jax.random.key(0))["scores"][:, :SHOWN]

    variables = jax_variables(detector, task, size, weights)
    infer = None if train else scores
    return compiled_run(
        task,
        variables,
        data,
        infer,
        compiler_options(),
        frozen=detector.frozen,
        frozen_statistics=detector.frozen_statistics,
    )


# -- PyTorch --------------------------------------------------------------------------------------


def reference(name: str, size: int) -> Any:
    """The network of torchvision or transformers, without weights."""
    if name == "detr":
        import transformers

        resnet = transformers.ResNetConfig(out_features=["stage4"])
        return transformers.DetrForObjectDetection(
            transformers.DetrConfig(
                use_timm_backbone=False,
                backbone=None,
                backbone_config=resnet,
                use_pretrained_backbone=False,
                num_labels=COCO,
                dropout=0.0,
                auxiliary_loss=True,
            )
        )
    from torchvision.models import detection

    build = getattr(detection, DETECTORS[name].model)
    common: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": COCO}
    if name == "keypointrcnn":
        common["num_classes"] = 2
    if name == "ssd300":
        # Mean and deviation of its own, as published; here as the others.
        return build(**common, image_mean=MEAN, image_std=STD)
    return build(**common, min_size=size, max_size=size, _skip_resize=True)


def prepared(name: str, model: Any, call: Callable[[], Any]) -> None:
    """Statistics and scores as a trained network might have them; see the top of the file."""
    import fnmatch

    import torch

    detector, modules = DETECTORS[name], dict(model.named_modules())
    norms = [m for m in modules.values() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        call()
        for norm in norms:
            norm.momentum = 0.1
            norm.eval()
        ends = [m for path, m in modules.items() if fnmatch.fnmatch(path, detector.classifier)]
        assert ends, detector.classifier
        outputs: list[Any] = []
        hooks = [end.register_forward_hook(lambda _m, _x, y: outputs.append(y)) for end in ends]
        call()
        for hook in hooks:
            hook.remove()
        spread = torch.cat([(y - y.mean()).reshape(-1) for y in outputs]).std()
        for end in ends:
            end.weight *= detector.spread / spread
            if detector.lead:
                end.bias[::COCO] += detector.lead


def torch_side(
    side: str, name: str, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """As `jax_side`, in PyTorch."""
    import torch
    from safetensors.torch import load_file, save_file

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = reference(name, size)
    given = arrays(batch, size)
    form = torch.contiguous_format if side == EAGER else torch.channels_last
    pixels = torch.from_numpy(np.moveaxis(given["image"] / 255, -1, 1).astype(np.float32))
    pixels = pixels.to(device)
    boxes, labels, masks, points = (
        torch.from_numpy(given[key]).to(device) for key in ("boxes", "label", "masks", "keypoints")
    )
    if name == "keypointrcnn":
        labels = torch.ones_like(labels)
    if name == "maskrcnn":
        model.transform.postprocess = lambda found, sizes, originals: found
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))

    def inputs() -> Any:
        return (pixels - mean) / std if name == "detr" else list(pixels)

    if not weights.exists():
        model.eval()
        prepared(name, model, lambda: model(inputs()))
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(state, weights)
    model.load_state_dict(load_file(weights), strict=True)
    model = model.to(device, memory_format=form).train(train)
    call = torch.compile(model) if side == COMPILE else model
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def loss() -> Any:
        if name == "detr":
            centre = (boxes[..., :2] + boxes[..., 2:]) / 2
            parts = torch.cat([centre, boxes[..., 2:] - boxes[..., :2]], -1) / size
            wanted = [{"class_labels": a, "boxes": b} for a, b in zip(labels, parts)]
            return call(inputs(), labels=wanted).loss
        wanted = [
            {"labels": a, "boxes": b, "masks": m.to(torch.uint8), "keypoints": p}
            for a, b, m, p in zip(labels, boxes, masks, points)
        ]
        return sum(call(inputs(), wanted).values())

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    def infer() -> Any:
        with torch.inference_mode(), precision:
            found = call(inputs())
        if name == "detr":
            scores = found.logits.softmax(-1)[..., :-1].amax(-1)
            return scores.sort(descending=True).values[:, :SHOWN]
        return torch.stack(
            [
                torch.nn.functional.pad(
                    one["scores"][:SHOWN], (0, SHOWN - len(one["scores"][:SHOWN]))
                )
                for one in found
            ]
        )

    versions = {"torch": torch.__version__}
    if name == "detr":
        import transformers

        versions["transformers"] = transformers.__version__
    else:
        import torchvision

        versions["torchvision"] = torchvision.__version__
    return step if train else infer, {"versions": versions}


class DetectorSide(Side):
    """What the worker answers with."""

    def make(self, network: str, *setting: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
        if self.side in TORCH:
            return torch_side(self.side, network, *setting)
        return jax_side(DETECTORS[network], *setting)


if __name__ == "__main__":
    work(DetectorSide)
