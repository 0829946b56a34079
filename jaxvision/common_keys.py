"""The configuration keys that every task has, and what must agree among them."""

import math
from collections.abc import Mapping
from typing import Any

from jaxvision.config import DURATION, FREE, Key, steps_of
from jaxvision.errors import UserError

KEYS: dict[str, Key] = {
    "task": Key("", "what is optimised; `jaxvision info tasks` lists the tasks"),
    "plugins": Key([], "packages and files ('./my_net.py') that register parts of your own"),
    "seed": Key(
        0,
        "the one seed: initial weights, order of records, augmentation, dropout",
        least=0,
        below=2**32,
    ),
    # -- data -----------------------------------------------------------------------------------
    "data.source": Key(
        "tfds", "tfds, folder (split/class/*.jpg), images, csv, masks (images + masks), idx, ..."
    ),
    "data.name": Key("digits", "tfds: data set name, built-in or any prepared as ArrayRecord"),
    "data.dir": Key("", "folder of the data; for tfds its data_dir (empty: the TFDS default)"),
    "data.options": Key(FREE, "arguments of the source, e.g. {'size': 64} for `shapes`"),
    "data.train": Key("train", "training split; may be cut: train[:90%], train[1000:]"),
    "data.validation": Key("", "split evaluated during training (empty: the test split)"),
    "data.test": Key("test", "split evaluated after training (empty: none)"),
    "data.classes": Key([], "class names in order (folders: found; masks: needed)"),
    "data.channels": Key(3, "3 for colour, 1 for grey; images are converted"),
    "data.void": Key(
        [], "masks: values of no class, beside 255 (65535 where there are more than 255 classes)"
    ),
    "data.mask_values": Key(
        [], "masks: value of each class in order; all others are ignored (empty: 0, 1, ...)"
    ),
    "data.mask_colours": Key(
        [], "masks: (red, green, blue) of each class in order; all others are ignored (empty: off)"
    ),
    "data.max_image_pixels": Key(
        2**29, "pixels that a file may declare; larger ones are refused", resumable=True, least=1
    ),
    "data.max_instances": Key(
        100, "objects of an image that a batch holds; of more the largest stay", least=1
    ),
    "data.max_proposals": Key(
        300, "proposals of an image that a batch holds; of more the best stay", least=1
    ),
    "data.max_caption": Key(512, "bytes a caption may have, UTF-8", least=1),
    "data.max_captions": Key(5, "captions of an image that a batch holds", least=1),
    "data.max_tokens": Key(
        32, "tokens of a caption, its begin and end among them; longer ones are cut", least=3
    ),
    "data.tokenizer": Key("word", "captions: word, bpe, or the path of a tokenizer.json"),
    "data.vocabulary_size": Key(10_000, "captions: how many tokens are learned at most", least=5),
    "data.min_count": Key(1, "captions: words that occur less often are unknown", least=1),
    "data.caption_frequencies": Key(
        False, "captions: count their n-grams, by which CIDEr as a reward weights them"
    ),
    "data.palette": Key(
        0,
        "networks that say colours: how many are learned of the images to train on (0: none); or "
        "a file that has them, facts.json of a run or preprocessor_config.json of transformers",
        kinds=(str, int),
        least=0,
    ),
    "data.balance": Key(
        0.0,
        "repeat records of classes that fewer than this share of records have (0: off)",
        least=0,
        below=1,
    ),
    "data.train_transforms": Key([], "host transforms in order, [{'name': ..., ...}]"),
    "data.eval_transforms": Key([], "the same for evaluation and prediction; no randomness"),
    "data.augment": Key([], "augmentation on the device in order, [{'name': ..., ...}]"),
    "data.mean": Key(
        [0.5], "per-channel mean of images in 0..1, subtracted on the device", least=-(2**31)
    ),
    "data.std": Key([0.25], "per-channel standard deviation, divided by on the device", above=0),
    "data.on_corrupt": Key(
        "error", "unreadable image: error, or skip (counted, reported)", choices=("error", "skip")
    ),
    "data.cache": Key(False, "keep the decoded data set in memory", resumable=True),
    "data.workers": Key(
        0, "worker processes; 0 = threads, which are faster", resumable=True, least=0
    ),
    "data.threads": Key(
        0,
        "reading and decoding threads; 0 = one a core (slow disks want more)",
        resumable=True,
        least=0,
    ),
    "data.prefetch": Key(2, "batches held ready on the device", resumable=True, least=1),
    # -- model ----------------------------------------------------------------------------------
    "model.name": Key("resnet8_cifar", "a name of `jaxvision info models`"),
    "model.options": Key(FREE, "fields of the model to override, e.g. {'dropout': 0.1}"),
    "model.dtype": Key(
        "float32",
        "compute type: float32 or bfloat16; parameters stay float32",
        choices=("float32", "bfloat16"),
    ),
    "model.weights": Key(
        "",
        "initial weights: a file (with #KEY one of its state_dicts), a folder, 'default', a tag "
        "(`jaxvision info weights`), a Hub name, or "
        "'run:FOLDER' or 'run:FOLDER#PART' of another run (PART: backbone, encoder, teacher)",
    ),
    "model.encoder_weights": Key(
        "", "initial weights of the encoder alone, of its own network: as model.weights"
    ),
    "model.reset_classifier": Key(
        False, "with weights: a fresh classifier even where the file's fits the number of classes"
    ),
    # -- optimiser ------------------------------------------------------------------------------
    "optimizer.name": Key(
        "adamw",
        "sgd, adam, adamw, rmsprop, lamb, lion, adafactor, or one of your own",
        part=True,
    ),
    "optimizer.options": Key(FREE, "arguments of an optimiser of your own"),
    "optimizer.learning_rate": Key(1e-3, "peak learning rate", least=0),
    "optimizer.weight_decay": Key(
        0.0, "coupled (as PyTorch) for sgd, adam, rmsprop; decoupled for the others", least=0
    ),
    "optimizer.last_weight_decay": Key(
        -1.0,
        "what weight decay comes to by half a cosine at the last step (-1: as it is)",
        least=-1,
    ),
    "optimizer.decay_mask": Key(
        "kernel$", "regex of the parameter paths that weight decay acts on"
    ),
    "optimizer.momentum": Key(0.9, "sgd, rmsprop: momentum", least=0, below=1),
    "optimizer.nesterov": Key(False, "sgd: Nesterov's momentum"),
    "optimizer.b1": Key(
        0.9, "adam, adamw, lamb, lion: decay of the first moment", least=0, below=1
    ),
    "optimizer.b2": Key(
        0.999, "adam, adamw, lamb, lion, rmsprop: decay of the second moment", least=0, below=1
    ),
    "optimizer.eps": Key(1e-8, "adam, adamw, lamb, rmsprop: added to the denominator", least=0),
    "optimizer.clip_norm": Key(0.0, "clip the global norm of the gradient (0: off)", least=0),
    "optimizer.clip_value": Key(0.0, "clip each entry of the gradient (0: off)", least=0),
    "optimizer.lr_multipliers": Key([], "[(regex, factor)] on parameter paths; first match wins"),
    "optimizer.layer_decay": Key(
        1.0,
        "factor on the learning rate from each layer to the one before it (fine-tuning)",
        above=0,
    ),
    "optimizer.freeze": Key([], "regexes of parameter paths that are not trained"),
    "optimizer.freeze_statistics": Key(
        [],
        "regexes of batch norms that use and keep their running statistics; frozen layers' change "
        "otherwise",
    ),
    "optimizer.accumulate": Key(1, "micro-batches a step; the batch is split among them", least=1),
    "optimizer.ema": Key(
        0.0,
        "decay of averaged weights and statistics, which evaluation uses (0: off); rises from 0",
        least=0,
        below=1,
    ),
    "optimizer.groups": Key(
        FREE,
        "tasks with several groups of parameters: what a group has of its own, e.g. "
        "{'discriminator': {'optimizer': {'learning_rate': 1e-4}}}",
    ),
    # -- schedule -------------------------------------------------------------------------------
    "schedule.name": Key(
        "cosine",
        "constant, step, polynomial, cosine, one_cycle, plateau, or one of your own",
        part=True,
    ),
    "schedule.warmup": Key(0, "linear warm-up from zero, a duration", kinds=DURATION),
    "schedule.milestones": Key([], "step: durations at which the rate is multiplied by factor"),
    "schedule.factor": Key(0.1, "step, plateau: the multiplier", least=0),
    "schedule.power": Key(0.9, "polynomial: the exponent", least=0),
    "schedule.final": Key(0.0, "polynomial, cosine: final rate as a fraction of the peak", least=0),
    "schedule.metric": Key("loss", "plateau: validation metric to watch"),
    "schedule.patience": Key(
        5, "plateau: evaluations without improvement before a reduction", least=0
    ),
    "schedule.min_delta": Key(
        1e-4, "plateau: the least change that counts as improvement", least=0
    ),
    # -- training -------------------------------------------------------------------------------
    "train.batch_size": Key(128, "images a step over all devices and processes", least=1),
    "train.duration": Key(
        "10 epochs", "length of the training, a duration", resumable=True, kinds=DURATION
    ),
    "train.log_every": Key(
        50,
        "steps between metric records; fewer where an epoch or a short training had none",
        resumable=True,
        least=1,
    ),
    "train.stop_metric": Key("", "early stopping: validation metric to watch (empty: off)"),
    "train.stop_patience": Key(10, "early stopping: evaluations without improvement", least=1),
    "train.profile": Key([], "(first, last) step of a profiler trace", resumable=True),
    "train.debug_nans": Key(False, "find the operation behind a NaN (slow)", resumable=True),
    "train.allow_changed_config": Key(
        False, "resume although keys differ that make it another experiment", resumable=True
    ),
    "eval.every": Key("1 epoch", "duration between evaluations", kinds=DURATION),
    "eval.batch_size": Key(0, "images an evaluation step (0: as train)", least=0),
    "eval.pictures": Key(
        8, "images in the picture of predictions (0: none)", resumable=True, least=0
    ),
    # -- checkpoints, devices, logs -------------------------------------------------------------
    "checkpoint.every": Key("1 epoch", "duration between", kinds=DURATION, resumable=True),
    "checkpoint.keep": Key(2, "newest checkpoints kept, besides the best", resumable=True, least=1),
    "checkpoint.best_metric": Key("", "validation metric of the best (empty: the task's main one)"),
    "mesh.data": Key(
        -1, "devices along which the batch is split; -1 = the rest", resumable=True, least=-1
    ),
    "mesh.fsdp": Key(
        1, "devices along which batch and parameters are split", resumable=True, least=1
    ),
    "log.report": Key(True, "write report.html after evaluations, in a thread", resumable=True),
    "log.tensorboard": Key(True, "write TensorBoard event files", resumable=True),
    "log.wandb": Key("", "Weights & Biases project (empty: off)", resumable=True),
    "compilation_cache": Key("auto", "folder of compiled programs; off = none", resumable=True),
}


def check(values: Mapping[str, Any]) -> None:
    """What must agree among the keys.

    Raises:
      UserError: naming the keys.
    """
    if values["data.channels"] not in (1, 3):
        raise UserError(f"Config key 'data.channels' is 1 or 3, got {values['data.channels']}.")
    if not (values["data.test"] or values["data.validation"]):
        raise UserError("Set data.test, data.validation or both: there is nothing to evaluate on.")
    for path in ("data.mean", "data.std"):
        if len(values[path]) not in (1, values["data.channels"]):
            raise UserError(
                f"Config key {path!r} has {len(values[path])} values for images of "
                f"{values['data.channels']} channels."
            )
    if values["train.batch_size"] % values["optimizer.accumulate"]:
        raise UserError(
            f"train.batch_size={values['train.batch_size']} cannot be split into "
            f"optimizer.accumulate={values['optimizer.accumulate']} equal micro-batches."
        )
    if values["optimizer.layer_decay"] > 1:
        raise UserError(
            f"optimizer.layer_decay is at most 1, got {values['optimizer.layer_decay']}."
        )
    for entry in values["optimizer.lr_multipliers"]:
        if not _is_multiplier(entry):
            raise UserError(
                f"optimizer.lr_multipliers holds pairs (regex, factor), such as ('head', 10.0), "
                f"got {entry!r}."
            )
    span = values["train.profile"]
    if span and not (len(span) == 2 and all(isinstance(s, int) for s in span) and span[0] > 0):
        raise UserError(f"Config key 'train.profile' is (first, last) step from 1, got {span}.")
    for milestone in values["schedule.milestones"]:
        steps_of(milestone, steps_per_epoch=10, total=100, key="schedule.milestones")


def _is_multiplier(entry: Any) -> bool:
    return (
        isinstance(entry, (list, tuple))
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], (int, float))
        and 0 <= entry[1] < math.inf
    )
