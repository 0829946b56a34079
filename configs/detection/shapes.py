"""Detectors on the built-in `shapes`: one recipe, one budget, a network a variant.

    python train.py --config configs/detection/shapes.py:fcos --workdir runs/shapes_fcos
    jaxvision predict --workdir runs/shapes_fcos photo.jpg --output predictions

4,000 scenes of 96 pixels, 500 for the test; AdamW, mirror images, batches of 32. Networks are
reduced so that two CPU cores train them in a quarter of an hour: a ResNet-18 without the map of
stride 4, a pyramid of 64 channels, two convolutions a head. Networks that cost less see the scenes
more often, `EPOCHS`. docs/detection.md says what they reach.
`:smoke` trains a small one for a few steps.

`fastrcnn` and `sppnet` are given proposals of selective search, which runs/proposals keeps: the
first epoch takes five minutes more. SPP-net's convolutions are not trained, so it wants some:

    python train.py --config configs/detection/shapes.py:sppnet --workdir runs/shapes_sppnet \
        --config.model.encoder_weights=run:runs/shapes_fastrcnn
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import REDUCED_FASTER_RCNN, detect_shapes, learn_shapes
from jaxvision.tasks import default_config

_PYRAMID = {"encoder": "resnet18", "width": 64, "depth": 2}
_ONE_MAP = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (2, 2, 2), "output_stride": 8},
}
_REGIONS = {**_ONE_MAP, "strides": (8,), "head_hidden": (256, 256)}
_GIVEN = ("fastrcnn", "sppnet")
NETWORKS = {
    "fcos": ("fcos_resnet50_fpn", {**_PYRAMID, "score_threshold": 0.05}),
    "retinanet": (
        "retinanet_resnet50_fpn_v2",
        {**_PYRAMID, "extra": "last", "sizes": (16, 32, 64, 128, 256), "max_detections": 100},
    ),
    "fasterrcnn": ("fasterrcnn_resnet50_fpn", REDUCED_FASTER_RCNN),
    "rfcn": (
        "rfcn_resnet50",
        {
            **_ONE_MAP,
            "stride": 8,
            "width": 128,
            "bins": 3,
            "anchor_sizes": ((16, 32, 64),),
            "candidates": (300, 300),
            "proposals": (100, 100),
            "anchor_sampling": (64, 0.5, 0.7, 0.3),
            "box_sampling": (64, 0.25, 0.5, 0.5),
        },
    ),
    "fastrcnn": ("fastrcnn_resnet50", {**_REGIONS, "pool_size": 5}),
    "sppnet": ("sppnet_vgg16", {**_REGIONS, "pool_size": (5, 3, 2, 1)}),
    # Windows of 15, 23 and 37 pixels.
    "overfeat": (
        "overfeat_fast",
        {
            "layers": ((32, 5, 2, 2, 2), (64, 3, 1, 1, 0), (96, 3, 1, 1, 0), (96, 3, 1, 1, 0)),
            "kernel": 4,
            **{"hidden": (64, 64), "box_hidden": (64, 64), "dropout": 0.0},
            "scales": (1.0, 0.64, 0.4),
        },
    ),
    # Of 16, 27 and 44 pixels.
    "sliding_window": (
        "sliding_window",
        {
            **{**_ONE_MAP, "encoder_options": {"depths": (1, 1, 1), "output_stride": 8}},
            **{"stride": 8, "kernel": 2, "hidden": (128, 128), "dropout": 0.0},
            "scales": (1.0, 0.6, 0.36),
        },
    ),
    "ssd": (
        "ssd300_vgg16",
        {
            "encoder": "resnet18",
            "strides": (8, 16, 32),
            **{"normalize": False, "linear": 0, "extras": ((64, 128, 3, 2, 1),)},
            **{"ratios": ((2, 3),) * 4, "scales": (), "steps": ()},
            **{"candidates": 100, "max_detections": 100},
        },
    ),
    "efficientdet": (
        "tf_efficientdet_d0",
        {**_PYRAMID, "repeats": 2, "last_level": 6, "anchor_scale": 2.0, "candidates": 500},
    ),
    "fastestdet": ("fastestdet", {}),
    # Cells of 32 pixels: what a cell says has weights of its own, so few cells learn sooner.
    "yolov1": (
        "yolov1",
        {
            "encoder": "resnet18",
            "encoder_options": {"depths": (2, 2, 2)},
            "score_threshold": 0.005,
            "width": 128,
            "stride": 2,
            "norm": True,
            **{"hidden": 512, "dropout": 0.0},
        },
    ),
    # Cells of 16 pixels; anchors by `jaxvision data anchors`.
    "yolov2": (
        "yolov2",
        {
            "encoder": "resnet18",
            "encoder_options": {"depths": (2, 2, 2)},
            "score_threshold": 0.005,
            "strides": (8, 16),
            "width": 128,
            "passthrough": 32,
            "anchors": ((0.16, 0.16), (0.22, 0.21), (0.28, 0.29), (0.45, 0.44), (0.59, 0.59)),
        },
    ),
    "yolov3": (
        "yolov3",
        {
            "encoder": "resnet18",
            "widths": (32, 64, 128),
            "anchors": (
                ((13, 14), (17, 16), (19, 20)),
                ((25, 22), (23, 28), (31, 30)),
                ((41, 42), (52, 49), (59, 62)),
            ),
        },
    ),
    "detr": (
        "detr_resnet50",
        {
            "encoder": "resnet18",
            "encoder_options": {"depths": (1, 1, 1)},
            **{"width": 128, "num_heads": 4, "hidden": 256},
            **{"encoder_layers": 2, "decoder_layers": 3, "queries": 20, "dropout": 0.0},
        },
    ),
    "yolos": (
        "yolos_tiny",
        {"patch_size": 12, "width": 128, "depth": 6, "num_heads": 4, "queries": 20, "grid": None},
    ),
}
# Of the others 10.
EPOCHS = {"fastestdet": 50, "detr": 40, "yolos": 25, "yolov1": 20, "efficientdet": 20}
RATES = {"detr": 3e-4, "yolos": 3e-4}  # transformers do not learn at the others' 1e-3


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, (*NETWORKS, "smoke"))
    config = default_config("detection")
    learn_shapes(config)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name, config.model.options = NETWORKS.get(variant, NETWORKS["fcos"])
    if variant in _GIVEN:
        search = {"name": "selective_search", "min_size": 8, "cache": "runs/proposals"}
        config.data.train_transforms = config.data.eval_transforms = (search,)
        config.data.max_proposals = 128
    if variant == "sppnet":
        config.optimizer.freeze = ("backbone",)
    if variant in RATES:
        config.optimizer.learning_rate = RATES[variant]
    if variant in EPOCHS:
        config.train.duration = f"{EPOCHS[variant]} epochs"
    if variant == "smoke":
        detect_shapes(config)
        config.model.name = "fastestdet"
        config.model.options = {"widths": (8, 16, 24, 32), "depths": (1, 1, 1)}
    return config
