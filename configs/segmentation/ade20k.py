"""UPerNet on ADE20k (Zhou et al. 2017, https://doi.org/10.1109/CVPR.2017.544): 150 classes.

    python train.py --config configs/segmentation/ade20k.py --config.data.dir=ADEChallengeData2016

Swin-T's recipe (Liu et al. 2021, https://arxiv.org/abs/2103.14030): crops of 512, AdamW, 160,000
steps of 16 images. `:beit` is BEiT-B at 640 with its layer-wise rates (Bao et al. 2021,
https://arxiv.org/abs/2106.08254), `:resnet50` the network of Xiao et al. 2018 with SGD. Images are
evaluated at a shorter side of 512, in windows of the size that was trained on. `:smoke` runs on
built-in shapes.
"""

from ml_collections import ConfigDict

from jaxvision.config import check_variant
from jaxvision.presets import IMAGENET_MEAN, IMAGENET_STD, segment_shapes
from jaxvision.tasks import default_config

# In the order of the benchmark, whose masks hold 1 to 150, and 0 for what is something else.
CLASSES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet,
sidewalk, person, earth, door, table, mountain, plant, curtain, chair, car, water,
painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk,
rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of
drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path,
stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge,
bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove,
palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus,
towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver,
airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier,
crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""


def get_config(variant: str = "") -> ConfigDict:
    variant = check_variant(variant, ("beit", "resnet50", "smoke"))
    side = 640 if variant == "beit" else 512
    config = default_config("segmentation")
    config.data.source = "masks"
    config.data.dir = "data/ADEChallengeData2016"
    config.data.options = {"images": "images/{split}", "masks": "annotations/{split}"}
    config.data.train, config.data.test = "training", "validation"
    config.data.classes = tuple(name.strip().replace("\n", " ") for name in CLASSES.split(","))
    config.data.mask_values = tuple(range(1, 151))
    config.data.mean, config.data.std = IMAGENET_MEAN, IMAGENET_STD
    config.data.train_transforms = (
        {"name": "resize_shorter", "size": side},
        {"name": "random_scale", "scale": (0.5, 2.0)},
        {"name": "random_crop", "size": side, "max_share": 0.75},
    )
    config.data.eval_transforms = (
        {"name": "resize_longer", "size": 2 * side},
        {"name": "pad_to", "size": 2 * side},
    )
    config.data.augment = (
        {"name": "flip_horizontal"},
        {"name": "random_color_jitter", "brightness": 0.3, "contrast": 0.5, "saturation": 0.5},
    )
    config.segmentation.auxiliary_weight = 0.4
    config.model.name = "upernet_swin_tiny"
    config.model.encoder_weights = "default"
    config.optimizer.learning_rate = 6e-5
    config.optimizer.weight_decay = 0.01
    config.schedule.name, config.schedule.power = "polynomial", 1.0
    config.schedule.warmup = 1_500
    config.train.batch_size = 16
    config.train.duration = 160_000
    config.eval.every = config.checkpoint.every = 16_000
    config.segmentation.window, config.segmentation.overlap = (side, side), 1 / 3
    if variant == "beit":
        config.model.name = "upernet_beit_base"
        config.optimizer.learning_rate = 3e-5
        config.optimizer.weight_decay = 0.05
    if variant == "resnet50":
        config.model.name = "upernet_resnet50"
        config.optimizer.name = "sgd"
        config.optimizer.learning_rate = 0.01
        config.optimizer.weight_decay = 5e-4
        config.schedule.power, config.schedule.warmup = 0.9, 0
    if variant == "smoke":
        segment_shapes(config)
        config.model.name, config.model.options = "upernet_resnet18", {"width": 16, "bins": (1, 2)}
        config.model.options["encoder_options"] = {"depths": (1, 1, 1, 1)}
        config.schedule.warmup = 0
        config.segmentation.window, config.segmentation.scales = (24, 24), (1.0, 1.5)
        config.segmentation.flip = True
    return config
