"""ESPNet on CamVid at full size, as its authors trained and evaluated it.

    python train.py --config configs/segmentation/camvid_espnet.py --config.data.dir=DIR

DIR is laid out as for camvid.py. Void is a class of the network's own; what is predicted on void
pixels counts as false positives, as published. The authors' weights (github.com/sacmehta/ESPNet,
pretrained/decoder/espnet_p_2_q_8_camvid.pth), 55.6 % mIoU and 68.3 % class average on the 233 test
frames, are evaluated by

    jaxvision evaluate --config configs/segmentation/camvid_espnet.py --config.data.dir=DIR \\
        --weights espnet_p_2_q_8_camvid.pth

`:smoke` runs on built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import segment_shapes
from jaxvision.tasks import default_config

CLASSES = "sky building pole road pavement tree sign fence car pedestrian bicyclist void"


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("smoke",))
    config = default_config("segmentation")
    config.data.source, config.data.dir = "masks", "data/camvid"
    config.data.classes = tuple(CLASSES.split())
    # The authors' (x - mean) / std / 255 of pixels to 255, here in the order red, green, blue.
    config.data.mean = (0.41189488, 0.42513280, 0.43267069)
    config.data.std = (69.90434816, 72.69074534, 72.12571015)
    config.data.augment = ({"name": "flip_horizontal"},)
    config.model.name = "espnet"
    config.model.options = {"bgr": True}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "step"
    config.schedule.milestones, config.schedule.factor = ("100 epochs", "200 epochs"), 0.5
    config.train.batch_size = 6
    config.train.duration = "300 epochs"
    config.eval.every = config.checkpoint.every = "10 epochs"
    config.segmentation.void, config.segmentation.void_class = "false_positives", "void"
    if variant == "smoke":
        segment_shapes(config)
        config.segmentation.void_class = "class 10"
        config.model.options = {"bgr": True, "depths": (1, 1)}
    return config
