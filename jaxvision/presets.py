"""What several configuration files say alike."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# fmt: off
# Lin et al. 2014, https://arxiv.org/abs/1405.0312, in the order of their ids.
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# Everingham et al. 2010, https://doi.org/10.1007/s11263-009-0275-4.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# What the built-in scenes show.
SHAPES = (
    "circle", "square", "triangle", "star", "ring", "cross", "pentagon", "heart", "crescent",
    "arrow",
)
# fmt: on

# Touvron et al. 2020, https://arxiv.org/abs/2012.12877; Swin's recipe has the same.
DEIT_AUGMENT = (
    {"name": "rand_augment", "num_ops": 2, "magnitude": 9},
    {"name": "random_erasing", "probability": 0.25, "value": "random"},
    {"name": "mixup_or_cutmix", "mixup_alpha": 0.8, "cutmix_alpha": 1.0},
)


def fashion_mnist(config: ConfigDict) -> None:
    """Fashion-MNIST (Xiao et al. 2017, https://arxiv.org/abs/1708.07747) from its idx files.

    Args:
      config: changed in place; `data.dir` is to hold the four files.
    """
    config.data.source = "idx"
    config.data.dir = "data/fashion_mnist"
    config.data.classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    config.data.channels = 1
    config.data.mean = (0.2860,)
    config.data.std = (0.3530,)


def imagenet(
    config: ConfigDict, size: int = 224, crop: float = 0.875, bicubic: bool = True
) -> None:
    """ImageNet (ILSVRC 2012) from folders, `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.

    Training: a random crop of 8 to 100 % of the area, and flips (Szegedy et al. 2014,
    https://arxiv.org/abs/1409.4842). Evaluation: a central crop.

    Args:
      config: changed in place.
      size: side of the images that the network sees.
      crop: the part of the shorter side that the central crop keeps.
      bicubic: whether images are resized by cubic rather than linear interpolation.
    """
    interpolation = "bicubic" if bicubic else "bilinear"
    config.data.source, config.data.dir = "folder", "data/imagenet"
    config.data.test = "val"
    config.data.on_corrupt = "skip"
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": size, "interpolation": interpolation},
    )
    config.data.eval_transforms = (
        {"name": "resize_shorter", "size": int(size / crop), "interpolation": interpolation},
        {"name": "center_crop", "size": size},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.eval.every = config.checkpoint.every = "1 epoch"


def reduce_to_shapes(config: ConfigDict, size: int = 32) -> None:
    """The same recipe for a few steps on the built-in `shapes`, whose images are of `size`."""
    config.data.source, config.data.name, config.data.dir = "tfds", "shapes", ""
    config.data.options = {"size": size, "train": 64, "test": 32}
    config.data.test = "test"
    config.data.train_transforms = (
        {"name": "random_resized_crop", "size": size, "scale": (0.5, 1.0)},
    )
    config.data.eval_transforms = ()
    # One operation of a policy: each further one is compiled once more.
    config.data.augment = tuple(
        {**entry, "num_ops": 1} if "num_ops" in entry else entry for entry in config.data.augment
    )
    config.train.batch_size = 16
    config.train.duration = "1 epoch"
    config.optimizer.accumulate = 1
    config.schedule.warmup = 0
    config.eval.every = "1 epoch"


def _seen_as(
    jitter: float, hue: float, blur: float, solarize: float, sigma: tuple[float, float]
) -> list[dict[str, Any]]:
    """What BYOL (2020, https://arxiv.org/abs/2006.07733) does to the colours of a view."""
    strengths = {"brightness": jitter, "contrast": jitter, "saturation": jitter / 2, "hue": hue}
    return [
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "probability": 0.8, **strengths},
        {"name": "random_greyscale", "probability": 0.2},
        *[{"name": "random_blur", "probability": blur, "sigma": sigma}] * (blur > 0),
        *[{"name": "random_solarize", "probability": solarize}] * (solarize > 0),
    ]


def global_and_local_views(
    config: ConfigDict,
    size: int,
    local_size: int = 0,
    local_count: int = 0,
    scale: tuple[float, float] = (0.4, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.4),
    sigma: tuple[float, float] = (0.1, 2.0),
) -> None:
    """Views and augmentations of DINO (Caron et al. 2021, https://arxiv.org/abs/2104.14294).

    Args:
      config: changed in place.
      size, scale: side of the two global views, and bounds of their area as part of the image's.
      local_size, local_scale: the same of the local views; no smaller than a patch.
      local_count: how many of them.
      sigma: of the blur, in pixels.
    """

    def crop(size: int, scale: tuple[float, float]) -> dict[str, Any]:
        return {
            "name": "random_resized_crop",
            "size": size,
            "scale": scale,
            "interpolation": "bicubic",
        }

    views: dict[str, Any] = {"global": {"count": 2, "transforms": [crop(size, scale)]}}
    augment: dict[str, Any] = {
        "global": (_seen_as(0.4, 0.1, 1.0, 0.0, sigma), _seen_as(0.4, 0.1, 0.1, 0.2, sigma))
    }
    if local_count:
        views["local"] = {"count": local_count, "transforms": [crop(local_size, local_scale)]}
        augment["local"] = (_seen_as(0.4, 0.1, 0.5, 0.0, sigma),)
    config.data.train_transforms = ({"name": "views", "views": views},)
    config.pretraining.augment = augment


def crops(config: ConfigDict, size: int, scale: tuple[float, float] = (0.2, 1.0)) -> None:
    """A crop and a flip for networks that reconstruct: He et al. 2021 (MAE) take no more.

    Args:
      config: changed in place.
      size: side of the crop.
      scale: bounds of its area as part of the image's.
    """
    crop = {"name": "random_resized_crop", "size": size, "scale": scale}
    config.data.train_transforms = ({**crop, "interpolation": "bicubic"},)
    config.data.augment = ({"name": "flip_horizontal"},)


def segment_shapes(config: ConfigDict, size: int = 32) -> None:
    """A segmentation recipe for a few steps on the built-in `shapes`, without trained weights."""
    reduce_to_shapes(config, size)
    config.data.options = {"size": size, "train": 32, "test": 16}
    config.data.classes = tuple(f"class {i}" for i in range(11))
    config.data.mask_values = ()
    config.data.train, config.data.on_corrupt = "train", "error"
    config.data.train_transforms = (
        {"name": "random_scale", "scale": (0.5, 2.0)},
        {"name": "random_crop", "size": size, "max_share": 0.75},
    )
    config.data.eval_transforms = ()
    config.model.encoder_weights = ""
    config.train.batch_size = 8
    config.eval.batch_size = 8
    config.checkpoint.every = "1 epoch"


def coco_recipe(config: ConfigDict) -> None:
    """COCO's objects, and torchvision's recipe for detectors on ResNet-50 with a pyramid.

    Args:
      config: changed in place; the learning rate is each network's own.
    """
    config.data.source, config.data.dir = "coco", "data/coco"
    config.data.options = {
        "images": "{split}2017",
        "annotations": "annotations/instances_{split}2017.json",
    }
    config.data.test = "val"
    config.data.classes = COCO_CLASSES
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    shapes = ((800, 1088), (1088, 800), (800, 1344), (1344, 800))  # a square would be half padding
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "resize_shortest", "buckets": shapes},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.encoder_weights = "default"
    config.optimizer.name = "sgd"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.freeze = (r"body/(conv1|bn1|layer1)",)
    config.optimizer.freeze_statistics = (r"body/",)
    config.schedule.name = "step"
    config.schedule.milestones = ("16 epochs", "22 epochs")
    config.schedule.warmup = 1000
    config.train.batch_size = 16
    config.train.duration = "26 epochs"
    config.eval.every = config.checkpoint.every = "1 epoch"


def learn_shapes(config: ConfigDict) -> None:
    """4,000 of the built-in scenes of 96 pixels, 500 for the test, and one recipe for objects.

    Ten epochs of AdamW, in batches of 32: a quarter of an hour for a reduced network on two CPU
    cores.

    Args:
      config: changed in place.
    """
    config.data.name = "shapes"
    config.data.options = {"size": 96, "train": 4000, "test": 500}
    config.data.cache = True
    config.data.max_instances = 8
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "8%"
    config.train.batch_size = 32
    config.train.duration = "10 epochs"
    config.eval.every = "5 epochs"


# A Faster R-CNN of a tenth of the work, for `learn_shapes`: no map of stride 4, few channels.
REDUCED_FASTER_RCNN = {
    "encoder": "resnet18",
    "strides": (8, 16, 32),
    "width": 64,
    "anchor_sizes": ((16,), (32,), (64,), (128,)),
    "candidates": (300, 300),
    "proposals": (100, 100),
    "anchor_sampling": (64, 0.5, 0.7, 0.3),
    "box_sampling": (64, 0.25, 0.5, 0.5),
    "head_hidden": (256, 256),
}


# One of a few steps, whose programs are soon compiled.
TINY_FASTER_RCNN = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1, 1, 1)},
    "strides": (8, 16),
    "width": 16,
    "anchor_sizes": ((16,), (32,), (64,)),
    "candidates": (30, 30),
    "proposals": (20, 20),
    "anchor_sampling": (32, 0.5, 0.7, 0.3),
    "box_sampling": (16, 0.25, 0.5, 0.5),
    "head_hidden": (32,),
    "max_detections": 10,
}


TINY_MASKS = {"mask_convs": (16,), "mask_width": 16, "mask_pool_size": 7}


# The networks of captions, as configs/captioning names them.
CAPTIONERS = (
    "nic",
    "cnn_rnn",
    "show_attend_tell",
    "hard_attention",
    "cnn_self_attention",
    "cnn_transformer",
    "vit_transformer",
    "vit_gpt2",
)


def captioner_options(
    recurrent: Mapping[str, Any],
    attention: Mapping[str, Any],
    transformer: Mapping[str, Any],
    vit: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Options of each of the networks of captions, by their kinds."""
    kinds = (recurrent,) * 2 + (attention,) * 3 + (transformer, {**vit, "pre_norm": True}, vit)
    return {name: dict(options) for name, options in zip(CAPTIONERS, kinds, strict=True)}


# One of a few steps, whose programs are soon compiled.
TINY_CAPTIONER = {
    "encoder": "resnet18",
    "encoder_options": {"depths": (1, 1)},
    "width": 16,
    "hidden": 16,
    "attention_width": 16,
}


def learn_captions(config: ConfigDict) -> None:
    """AdamW for words after those before them.

    Args:
      config: changed in place.
    """
    config.captioning.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup = "5%"


def caption_shapes(config: ConfigDict, size: int = 32) -> None:
    """A captioning recipe for a few steps on the built-in `shapes`, whose images are of `size`."""
    reduce_to_shapes(config, size)
    config.data.options = {"size": size, "train": 32, "test": 16}
    config.data.train, config.data.validation, config.data.max_captions = "train", "", 1
    config.data.max_tokens = 40
    config.data.train_transforms = config.data.augment = ()
    config.model.name, config.model.options = "show_attend_tell", TINY_CAPTIONER
    config.model.weights = config.model.encoder_weights = ""
    config.optimizer.freeze_statistics = ()
    config.captioning.frozen_encoder = 0.0
    config.captioning.decoding = "greedy"
    config.train.batch_size = config.eval.batch_size = 8
    config.checkpoint.every = "1 epoch"


def detect_shapes(config: ConfigDict, size: int = 64) -> None:
    """A detection recipe for a few steps on the built-in `shapes`, whose images are of `size`."""
    reduce_to_shapes(config, size)
    config.data.options = {"size": size, "train": 32, "test": 16}
    config.data.classes = ()
    config.data.train, config.data.on_corrupt = "train", "error"
    config.data.max_instances = 8
    config.data.train_transforms = config.data.eval_transforms = ()
    config.model.weights = config.model.encoder_weights = ""
    config.train.batch_size = config.eval.batch_size = 8
    config.checkpoint.every = "1 epoch"


def image_gpt(config: ConfigDict, size: int, colours: int) -> None:
    """Pixels as colours one after another, by the recipe of iGPT-S.

    Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html, section 3.3 and appendix:
    Adam at a rate of 0.003 with betas of 0.9 and 0.95, no weight decay; crops of images, mirrored.

    Args:
      config: changed in place.
      size: side of the images.
      colours: of the palette.
    """
    config.data.palette = colours
    config.data.train_transforms = config.data.eval_transforms = (
        {"name": "resize_shorter", "size": size},
        {"name": "center_crop", "size": size},
    )
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "imagegpt_small"
    config.optimizer.name = "adam"
    config.optimizer.b2 = 0.95
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.eval.pictures = 16


# -- self-supervised learning that two CPU cores can train: 64 patches, whatever the size ----------

# A discrete VAE of 8x8 tokens of images of 32 pixels.
SMALL_DVAE = {"groups": 3, "blocks": 1, "hidden": 32, "codes": 512, "width": 64}


def small_vit(size: int) -> dict[str, Any]:
    """Options of a vision transformer of 0.8 million parameters for images of a size."""
    return {"patch_size": size // 8, "width": 128, "depth": 4, "num_heads": 4}


def small_dino(config: ConfigDict, size: int) -> None:
    """Caron et al. 2021, https://arxiv.org/abs/2104.14294."""
    global_and_local_views(config, size, size // 2, 2, local_scale=(0.1, 0.4), sigma=(0.1, 1.0))
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = small_vit(size)
    own = config.pretraining
    own.hidden, own.bottleneck, own.head_norm = 512, 128, True
    own.teacher_momentum = 0.99
    config.optimizer.last_weight_decay = 0.4


def small_mocov3(config: ConfigDict, size: int) -> None:
    """Chen et al. 2021, https://arxiv.org/abs/2104.02057."""
    global_and_local_views(config, size, scale=(0.2, 1.0), sigma=(0.1, 1.0))
    config.model.name = "vit_tiny_patch16_224"
    config.model.options = {**small_vit(size), "positions": "fixed"}
    config.pretraining.method = "mocov3"
    config.pretraining.hidden, config.pretraining.bottleneck = 512, 128
    config.pretraining.teacher_momentum = 0.99
    config.optimizer.freeze = ("^backbone/patch_embed/",)


def small_mae(config: ConfigDict, size: int) -> None:
    """He et al. 2021, https://arxiv.org/abs/2111.06377."""
    crops(config, size)
    config.model.name = "mae_vit_base_patch16_224"
    decoder = {"width": 96, "depth": 2, "num_heads": 3}
    config.model.options = {"encoder_options": small_vit(size), **decoder}
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05


def small_beit(config: ConfigDict, size: int, tokenizer: str) -> None:
    """Bao et al. 2021, https://arxiv.org/abs/2106.08254.

    Args:
      config: changed in place.
      size: side of the images.
      tokenizer: weights of it, a run of configs/pretraining/dvae.py.
    """
    crops(config, size)
    config.model.name = "beit_base_patch16_224_mim"
    config.model.options = {"encoder_options": small_vit(size), "codes": SMALL_DVAE["codes"]}
    own = config.pretraining
    own.hidden_patches, own.least_block = 25, 5
    own.tokenizer.network, own.tokenizer.options = "dvae", SMALL_DVAE
    own.tokenizer.weights, own.tokenizer.size = tokenizer, 32
    config.optimizer.weight_decay = 0.05


def small_denoising(config: ConfigDict, size: int) -> None:
    """Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294."""
    crops(config, size)
    config.model.name = "denoising_vit_small_patch16_224"
    config.model.options = {"encoder_options": small_vit(size)}
    config.pretraining.corruption_amount = 0.5


def small_context(config: ConfigDict, size: int) -> None:
    """Pathak et al. 2016, https://arxiv.org/abs/1604.07379: random blocks, a quarter at most."""
    crops(config, size)
    config.model.name = "context_vit_small_patch16_224"
    config.model.options = {"encoder_options": small_vit(size)}
    own = config.pretraining
    own.context_squares, own.context_side, own.context_overlap = 4, 0.25, size // 32


def small_igpt(config: ConfigDict) -> None:
    """Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html, of 16x16 pixels."""
    image_gpt(config, 16, 64)
    config.model.options = {"size": 16, "width": 128, "depth": 6, "num_heads": 4}
    config.train.batch_size = 32
