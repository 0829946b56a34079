"""Every configuration key: its default, its meaning, and whether a resumed run may change it.

A config file defines `get_config(variant="")`, starts from `default_config()` and overrides what
its experiment needs. The tree is closed: a misspelt key is an error that names its neighbours.

Durations (`train.duration`, `eval.every`, `schedule.warmup`, ...) are a number of steps (`500`), of
epochs (`"10 epochs"`), of the whole training (`"5%"`), or `"never"`; see `steps_of`.
"""

import ast
import importlib.util
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.errors import UserError, nearest, unknown


@dataclass(frozen=True)
class Key:
    """One configuration key."""

    default: Any
    meaning: str
    resumable: bool = False  # a resumed run may change it without becoming another experiment
    kinds: tuple[type, ...] = ()  # accepted types besides that of the default


_DURATION = (int, str)
_FREE = ConfigDict()  # default of groups whose keys belong to what they configure (a model, ...)

KEYS: dict[str, Key] = {
    "task": Key("classification", "what is optimised: classification or segmentation"),
    "seed": Key(0, "the one seed: initial weights, order of records, augmentation, dropout"),
    # -- data -----------------------------------------------------------------------------------
    "data.source": Key("tfds", "tfds, folder (split/class/*.jpg), masks (images + masks) or idx"),
    "data.name": Key("digits", "tfds: data set name, built-in or any prepared as ArrayRecord"),
    "data.dir": Key("", "folder of the data; for tfds its data_dir (empty: the TFDS default)"),
    "data.options": Key(_FREE, "arguments of the source, e.g. {'size': 64} for `shapes`"),
    "data.train": Key("train", "training split; may be cut: train[:90%], train[1000:]"),
    "data.validation": Key("", "split evaluated during training (empty: the test split)"),
    "data.test": Key("test", "split evaluated after training (empty: none)"),
    "data.classes": Key([], "class names in order (folders: found; masks: needed)"),
    "data.channels": Key(3, "3 for colour, 1 for grey; images are converted"),
    "data.void": Key([], "masks: values that stand for no class; they become 255 = ignore"),
    "data.mask_values": Key(
        [], "masks: value of each class in order; all others are ignored (empty: 0, 1, ...)"
    ),
    "data.balance": Key(
        0.0, "repeat records of classes that fewer than this share of records have (0: off)"
    ),
    "data.train_transforms": Key([], "host transforms in order, [{'name': ..., ...}]"),
    "data.eval_transforms": Key([], "the same for evaluation and prediction; no randomness"),
    "data.augment": Key([], "augmentation on the device in order, [{'name': ..., ...}]"),
    "data.mean": Key([0.5], "per-channel mean of images in 0..1, subtracted on the device"),
    "data.std": Key([0.25], "per-channel standard deviation, divided by on the device"),
    "data.on_corrupt": Key("error", "unreadable image: error, or skip (counted, reported)"),
    "data.cache": Key(False, "keep the decoded data set in memory", resumable=True),
    "data.workers": Key(0, "worker processes; 0 = threads, which are faster", resumable=True),
    "data.threads": Key(
        0, "reading and decoding threads; 0 = one a core (slow disks want more)", resumable=True
    ),
    "data.prefetch": Key(2, "batches held ready on the device", resumable=True),
    # -- model ----------------------------------------------------------------------------------
    "model.name": Key("resnet8_cifar", "a name of `jaxvision info models`"),
    "model.options": Key(_FREE, "fields of the model to override, e.g. {'dropout': 0.1}"),
    "model.dtype": Key("float32", "compute type: float32 or bfloat16; parameters stay float32"),
    "model.weights": Key(
        "", "initial weights: a file, 'default', a tag (`jaxvision info weights`) or a Hub name"
    ),
    "model.encoder_weights": Key(
        "", "initial weights of the encoder alone, of its own network: as model.weights"
    ),
    "model.reset_classifier": Key(
        False, "with weights: a fresh classifier even where the file's fits the number of classes"
    ),
    # -- loss -----------------------------------------------------------------------------------
    "loss.name": Key(
        "cross_entropy",
        "classification: cross_entropy, hinge (SVM) or margin (CapsNet); segmentation: several, "
        "joined by +, of cross_entropy, focal, dice, soft_iou, tversky, lovasz",
    ),
    "loss.options": Key(
        _FREE, "segmentation: arguments of the terms, e.g. {'focal': {'gamma': 3.0}}"
    ),
    "loss.hard_share": Key(
        0.0, "segmentation: keep the hardest pixels, at least this share (0: all count)"
    ),
    "loss.hard_threshold": Key(
        0.7, "with hard_share: pixels whose class has less probability are kept too"
    ),
    "loss.label_smoothing": Key(0.0, "mass given uniformly to all classes"),
    "loss.class_weights": Key([], "weight of each class in the loss (empty: all one)"),
    "loss.l1": Key(0.0, "L1 penalty on kernels, added to the loss"),
    "loss.l2": Key(0.0, "L2 penalty (half squared norm) on kernels, added to the loss"),
    "loss.auxiliary_weight": Key(0.3, "weight of the losses of auxiliary heads (GoogLeNet: 0.3)"),
    "loss.reconstruction_weight": Key(5e-4, "weight of the squared errors of reconstructed images"),
    # -- distillation ---------------------------------------------------------------------------
    "distillation.model": Key("", "classification: the network to learn from (empty: off)"),
    "distillation.options": Key(_FREE, "fields of the teacher to override"),
    "distillation.weights": Key("", "the teacher's weights: a file, a tag or a Hub name"),
    "distillation.kind": Key("hard", "hard: the teacher's class; soft: its probabilities"),
    "distillation.weight": Key(0.5, "share of the teacher in the loss; the labels have the rest"),
    "distillation.temperature": Key(1.0, "soft: what logits are divided by"),
    # -- optimiser ------------------------------------------------------------------------------
    "optimizer.name": Key("adamw", "sgd, adam, adamw, rmsprop, lamb, lion or adafactor"),
    "optimizer.learning_rate": Key(1e-3, "peak learning rate"),
    "optimizer.weight_decay": Key(
        0.0, "coupled (as PyTorch) for sgd, adam, rmsprop; decoupled for the others"
    ),
    "optimizer.decay_mask": Key(
        "kernel$", "regex of the parameter paths that weight decay acts on"
    ),
    "optimizer.momentum": Key(0.9, "sgd, rmsprop: momentum"),
    "optimizer.nesterov": Key(False, "sgd: Nesterov's momentum"),
    "optimizer.b1": Key(0.9, "adam, adamw, lamb, lion: decay of the first moment"),
    "optimizer.b2": Key(0.999, "adam, adamw, lamb, lion, rmsprop: decay of the second moment"),
    "optimizer.eps": Key(1e-8, "adam, adamw, lamb, rmsprop: added to the denominator"),
    "optimizer.clip_norm": Key(0.0, "clip the global norm of the gradient (0: off)"),
    "optimizer.clip_value": Key(0.0, "clip each entry of the gradient (0: off)"),
    "optimizer.lr_multipliers": Key([], "[(regex, factor)] on parameter paths; first match wins"),
    "optimizer.layer_decay": Key(
        1.0, "factor on the learning rate from each layer to the one before it (fine-tuning)"
    ),
    "optimizer.freeze": Key([], "regexes of parameter paths that are not trained"),
    "optimizer.accumulate": Key(1, "micro-batches a step; the batch is split among them"),
    "optimizer.ema": Key(0.0, "decay of the averaged weights that evaluation uses (0: off)"),
    # -- schedule -------------------------------------------------------------------------------
    "schedule.name": Key("cosine", "constant, step, polynomial, cosine, one_cycle or plateau"),
    "schedule.warmup": Key(0, "linear warm-up from zero, a duration", kinds=_DURATION),
    "schedule.milestones": Key([], "step: durations at which the rate is multiplied by factor"),
    "schedule.factor": Key(0.1, "step, plateau: the multiplier"),
    "schedule.power": Key(0.9, "polynomial: the exponent"),
    "schedule.final": Key(0.0, "polynomial, cosine: final rate as a fraction of the peak"),
    "schedule.metric": Key("loss", "plateau: validation metric to watch"),
    "schedule.patience": Key(5, "plateau: evaluations without improvement before a reduction"),
    "schedule.min_delta": Key(1e-4, "plateau: the least change that counts as improvement"),
    # -- training -------------------------------------------------------------------------------
    "train.batch_size": Key(128, "images a step over all devices and processes"),
    "train.duration": Key("10 epochs", "length of the training, a duration", kinds=_DURATION),
    "train.log_every": Key(50, "steps between metric records", resumable=True),
    "train.stop_metric": Key("", "early stopping: validation metric to watch (empty: off)"),
    "train.stop_patience": Key(10, "early stopping: evaluations without improvement"),
    "train.profile": Key([], "(first, last) step of a profiler trace", resumable=True),
    "train.debug_nans": Key(False, "find the operation behind a NaN (slow)", resumable=True),
    "train.allow_changed_config": Key(
        False, "resume although keys differ that make it another experiment", resumable=True
    ),
    "eval.every": Key("1 epoch", "duration between evaluations", kinds=_DURATION),
    "eval.batch_size": Key(0, "images an evaluation step (0: as train)"),
    "eval.scales": Key([1.0], "segmentation: sizes to average over, relative to the image's"),
    "eval.flip": Key(False, "segmentation: average over the mirrored image too"),
    "eval.window": Key([], "segmentation: [height, width] of sliding windows (empty: all at once)"),
    "eval.overlap": Key(0.5, "segmentation: the part of a window that the next covers again"),
    "eval.void": Key("ignore", "what is predicted on void: ignore, or false_positives"),
    "eval.void_class": Key("", "the last class, if metrics are to take it for void"),
    "eval.boundary": Key(
        0.0, "tolerance of the boundary F1, of the diagonal; e.g. 0.0075 (0: off)"
    ),
    "eval.pictures": Key(8, "images in the picture of predictions (0: none)", resumable=True),
    # -- checkpoints, devices, logs -------------------------------------------------------------
    "checkpoint.every": Key("1 epoch", "duration between", kinds=_DURATION, resumable=True),
    "checkpoint.keep": Key(2, "newest checkpoints kept, besides the best", resumable=True),
    "checkpoint.best_metric": Key("", "validation metric of the best (empty: the task's main one)"),
    "mesh.data": Key(-1, "devices along which the batch is split; -1 = the rest", resumable=True),
    "mesh.fsdp": Key(1, "devices along which batch and parameters are split", resumable=True),
    "log.tensorboard": Key(True, "write TensorBoard event files", resumable=True),
    "log.wandb": Key("", "Weights & Biases project (empty: off)", resumable=True),
    "compilation_cache": Key("auto", "folder of compiled programs; off = none", resumable=True),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("classification", "segmentation"),
    "data.source": ("tfds", "folder", "masks", "idx"),
    "data.on_corrupt": ("error", "skip"),
    "model.dtype": ("float32", "bfloat16"),
    "distillation.kind": ("hard", "soft"),
    "eval.void": ("ignore", "false_positives"),
    "optimizer.name": ("sgd", "adam", "adamw", "rmsprop", "lamb", "lion", "adafactor"),
    "schedule.name": ("constant", "step", "polynomial", "cosine", "one_cycle", "plateau"),
}
LOSSES: dict[str, tuple[str, ...]] = {
    "classification": ("cross_entropy", "hinge", "margin"),
    "segmentation": ("cross_entropy", "focal", "dice", "soft_iou", "tversky", "lovasz"),
}
_BELOW_ONE = (
    "loss.hard_share",
    "eval.overlap",
    "eval.boundary",
    "loss.label_smoothing",
    "optimizer.ema",
    "distillation.weight",
)
_POSITIVE = ("train.batch_size", "train.log_every", "optimizer.accumulate", "checkpoint.keep")


def default_config() -> ConfigDict:
    """A fresh, closed configuration with every key at its default."""
    config = ConfigDict(type_safe=False)  # `validate` knows better which types are right
    for path, key in KEYS.items():
        *groups, leaf = path.split(".")
        node = config
        for group in groups:
            if group not in node:
                node[group] = ConfigDict(type_safe=False)
            node = node[group]
        if key.default is _FREE:
            node[leaf] = ConfigDict(convert_dict=False)
        elif isinstance(key.default, list):
            node[leaf] = tuple(key.default)
        else:
            node[leaf] = key.default
    return config.lock()


def flatten(config: ConfigDict) -> dict[str, Any]:
    """`{"train.batch_size": 128, ...}`, one entry a key of `KEYS`, in their order."""
    flat = {}
    for path in KEYS:
        value = config
        for part in path.split("."):
            value = value[part]
        flat[path] = value.to_dict() if isinstance(value, ConfigDict) else value
    return flat


def set_key(config: ConfigDict, path: str, value: Any) -> None:
    """Sets `path` in place; `value` is checked against the key's type.

    `data.options.size` style paths reach into the free-form groups.

    Raises:
      UserError: no such key, or a value of the wrong type.
    """
    for free in (p for p, key in KEYS.items() if key.default is _FREE):
        if path.startswith(free + "."):
            node = config
            for part in free.split("."):
                node = node[part]
            with node.unlocked():
                node[path[len(free) + 1 :]] = value
            return
    if path not in KEYS:
        raise unknown("config key", path, KEYS)
    *groups, leaf = path.split(".")
    node = config
    for group in groups:
        node = node[group]
    node[leaf] = _typed(path, value)


def _typed(path: str, value: Any) -> Any:
    key = KEYS[path]
    default = key.default
    if default is _FREE:
        if isinstance(value, dict):
            return ConfigDict(value, convert_dict=False)
        raise UserError(f"Config key {path!r} takes a mapping, got {value!r}.")
    if isinstance(default, list):
        if isinstance(value, (list, tuple)):
            return tuple(value)
        raise UserError(f"Config key {path!r} takes a list, got {value!r}.")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = key.kinds or (type(default),)
    if isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool)):
        return value
    kinds = " or ".join(kind.__name__ for kind in accepted)
    raise UserError(f"Config key {path!r} takes {kinds}, got {value!r}.")


def override(config: ConfigDict, path: str, value: Any) -> None:
    """`set_key`, with strings parsed as on the command line where the key takes no string.

    Raises:
      UserError: as `set_key`.
    """
    if isinstance(value, str):
        key = KEYS.get(path)
        if key is not None and key.kinds == _DURATION:
            value = int(value) if value.isdigit() else value
        elif key is None or key.default is _FREE or not isinstance(key.default, str):
            value = parse_value(value)
    set_key(config, path, value)


def parse_value(text: str) -> Any:
    """A command-line value: a Python literal (`0.1`, `[1, 2]`, `True`), else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def load(spec: str, overrides: dict[str, Any] | None = None) -> ConfigDict:
    """The validated configuration of `FILE[:variant]` with `overrides` applied.

    Args:
      spec: path of a Python file that defines `get_config(variant)`, optionally with `:variant`.
      overrides: values by key path; strings are parsed as on the command line.

    Raises:
      UserError: no such file or variant, unknown key, wrong type or value.
    """
    name, _, variant = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"No config file {name!r}.{_nearest_file(path)}")
    module_spec = importlib.util.spec_from_file_location(f"jaxvision_config_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"{name} is no Python file.")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{name} defines no get_config(variant).")
    try:
        config = module.get_config(variant)
    except (AttributeError, KeyError, TypeError) as error:
        # What ConfigDict says of setting and of reading an attribute that does not exist.
        inner: Any = error
        while isinstance(inner, Exception) and inner.args:
            inner = inner.args[0]
        text = str(inner)
        misspelt = re.search(r"""Key "(\w+)" does not exist|^["']+(\w+)['"]""", text)
        if misspelt is None:
            raise UserError(f"{name}: {text}") from error
        raise _unknown_leaf(misspelt[1] or misspelt[2], where=name) from error
    for key, value in (overrides or {}).items():
        override(config, key, value)
    validate(config)
    return config


def _unknown_leaf(leaf: str, where: str) -> UserError:
    """The error for an attribute that a config file set: only its last part is known."""
    close = nearest(leaf, {part for path in KEYS for part in path.split(".")})
    paths = [path for path in KEYS if set(path.split(".")) & set(close)]
    hint = f" Did you mean {', '.join(paths[:5])}?" if paths else ""
    return UserError(f"{where}: unknown config key {leaf!r}.{hint}")


def _nearest_file(path: Path) -> str:
    root = Path("configs") if Path("configs").is_dir() else path.parent
    found = [str(p) for p in sorted(root.rglob("*.py"))] if root.is_dir() else []
    close = nearest(str(path), found, count=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def check_variant(variant: str, valid: tuple[str, ...]) -> str:
    """`variant` if it is "" or one of `valid`; else an error that lists them."""
    if variant and variant not in valid:
        raise unknown("config variant", variant, valid)
    return variant


def validate(config: ConfigDict) -> None:
    """Checks values that need no data: choices, ranges, durations.

    Raises:
      UserError: naming the key, the value and what is accepted.
    """
    flat = flatten(config)
    for path, value in flat.items():
        _typed(path, value)
    for path, valid in CHOICES.items():
        if flat[path] not in valid:
            raise unknown(f"value of {path}", flat[path], valid)
    loss_terms(config)
    for path in _POSITIVE:
        if flat[path] < 1:
            raise UserError(f"Config key {path!r} must be at least 1, got {flat[path]}.")
    for path in ("data.threads", "data.workers"):
        if flat[path] < 0:
            raise UserError(f"Config key {path!r} must be at least 0, got {flat[path]}.")
    if flat["data.channels"] not in (1, 3):
        raise UserError(f"Config key 'data.channels' is 1 or 3, got {flat['data.channels']}.")
    if not (flat["data.test"] or flat["data.validation"]):
        raise UserError("Set data.test, data.validation or both: there is nothing to evaluate on.")
    for path in ("data.mean", "data.std"):
        if len(flat[path]) not in (1, flat["data.channels"]):
            raise UserError(
                f"Config key {path!r} has {len(flat[path])} values for images of "
                f"{flat['data.channels']} channels."
            )
    if flat["train.batch_size"] % flat["optimizer.accumulate"]:
        raise UserError(
            f"train.batch_size={flat['train.batch_size']} cannot be split into "
            f"optimizer.accumulate={flat['optimizer.accumulate']} equal micro-batches."
        )
    if not 0 < flat["optimizer.layer_decay"] <= 1:
        raise UserError(
            f"optimizer.layer_decay is above 0 and at most 1, got {flat['optimizer.layer_decay']}."
        )
    for path in _BELOW_ONE:
        if not 0 <= flat[path] < 1:
            raise UserError(f"Config key {path!r} is from 0 to below 1, got {flat[path]}.")
    span = flat["train.profile"]
    if span and not (len(span) == 2 and all(isinstance(s, int) for s in span) and span[0] > 0):
        raise UserError(f"Config key 'train.profile' is (first, last) step from 1, got {span}.")
    for path, key in KEYS.items():
        if key.kinds == _DURATION:
            steps_of(flat[path], steps_per_epoch=10, total=100, key=path)
    for milestone in flat["schedule.milestones"]:
        steps_of(milestone, steps_per_epoch=10, total=100, key="schedule.milestones")


def loss_terms(config: ConfigDict) -> list[str]:
    """The names in `loss.name`: one, or for segmentation several joined by "+".

    Raises:
      UserError: one of them is no loss of the task.
    """
    known = LOSSES[config.task]
    terms = config.loss.name.split("+") if config.task == "segmentation" else [config.loss.name]
    for term in terms:
        if term not in known:
            raise unknown(f"loss.name for task={config.task!r}", term, known)
    return terms


def steps_of(
    duration: int | str, *, steps_per_epoch: int, total: int = 0, key: str = "duration"
) -> int:
    """A duration in steps: `500`, `"500 steps"`, `"2.5 epochs"`, `"10%"` of `total`, `"never"` (0).

    What is more than nothing is at least one step: a small share must not come to mean "never".

    Raises:
      UserError: the text is none of these forms.
    """
    match = re.fullmatch(r"\s*([\d.]+)\s*(steps?|epochs?|%|)\s*", str(duration))
    if str(duration).strip() == "never":
        return 0
    if not match or match[1].count(".") > 1 or match[1] == ".":
        raise UserError(
            f"{key}: {duration!r} is no duration. Write a number of steps (500), "
            "'10 epochs', '5%' or 'never'."
        )
    amount = float(match[1])
    if match[2].startswith("epoch"):
        return math.ceil(amount * steps_per_epoch)
    if match[2] == "%":
        return max(round(amount / 100 * total), int(amount * total > 0))
    return int(amount)


def to_json(config: ConfigDict) -> str:
    """The configuration as indented JSON."""
    return json.dumps(config.to_dict(), indent=2, default=list)


def from_json(text: str) -> ConfigDict:
    """The configuration that `to_json` wrote.

    Raises:
      UserError: the text is not such a configuration.
    """
    config = default_config()
    try:
        stored = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"config.json is not valid JSON: {error}.") from error
    for path in KEYS:
        node = stored
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                break  # written before this key existed: its default stands
            node = node[part]
        else:
            set_key(config, path, node)
    return config


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Keys that differ and that a resumed run may not change: `{key: (old, new)}`."""
    before, after = (json.loads(json.dumps(flatten(c), default=list)) for c in (old, new))
    return {
        path: (before[path], after[path])
        for path, key in KEYS.items()
        if not key.resumable and before[path] != after[path]
    }
