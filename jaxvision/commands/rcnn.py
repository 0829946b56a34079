"""Detect objects as R-CNN or SPP-net do, stage by stage: proposals, features, SVMs, boxes.

    jaxvision rcnn proposals --config configs/detection/shapes.py --workdir runs/rcnn --limit 100
    jaxvision rcnn finetune --config configs/detection/shapes.py --workdir runs/rcnn --crop 64
    jaxvision rcnn features --config configs/detection/shapes.py --workdir runs/rcnn
    jaxvision rcnn svm --config configs/detection/shapes.py --workdir runs/rcnn
    jaxvision rcnn boxes --config configs/detection/shapes.py --workdir runs/rcnn
    jaxvision rcnn evaluate --config configs/detection/shapes.py --workdir runs/rcnn

Each stage is kept in the workdir and made once. `finetune` and `boxes` may be left out. With
`--pool spp` from `features` on it is SPP-net, of the same proposals and the same network
(docs/detection.md).
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.errors import UserError, unknown

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxvision.runs.stages import Stages

POOLS = ("crop", "spp")
# He et al. 2014 and Girshick 2015 on a K40: the network is VGG16.
LECTURE = "R-CNN with VGG16 on a K40: 47 s"
_CROP, _PADDING = 227, 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    def stage(name: str, text: str) -> Any:
        sub = stages.add_parser(name, help=text, description=text, allow_abbrev=False)
        add = sub.add_argument
        add("--config", required=True, metavar="FILE[:VARIANT]", help="config file of detection")
        add("--workdir", required=True, metavar="FOLDER", help="keeps the stages")
        if name != "evaluate":
            add("--again", action="store_true", help="make it anew, if it has been made")
        if name in ("features", "svm", "boxes", "evaluate"):
            add("--pool", default="crop", help="crop (default): R-CNN; spp: SPP-net")
        return add

    add = stage("proposals", "boxes of selective search for every image")
    add("--train", type=int, default=0, metavar="N", help="the first N images to learn from only")
    add("--test", type=int, default=0, metavar="N", help="the first N images of the test only")
    add("--mode", default="fast", help="fast (default), quality or single")
    add("--limit", type=int, default=2000, metavar="N", help="proposals of an image (default 2000)")
    add("--min-side", type=float, default=8, metavar="PIXELS", help="of a proposal (default 8)")
    for name, text in (
        ("finetune", "train the network on windows: N + 1 classes"),
        ("features", "what the network says of every window"),
    ):
        add = stage(name, text)
        add("--network", help="a classifier (default: the encoder of the configured detector)")
        add("--weights", help="it starts from (default: model.encoder_weights)")
        add("--crop", type=int, metavar="PIXELS", help=f"side of a window (default {_CROP})")
        add("--padding", type=int, metavar="PIXELS", help=f"context in it (default {_PADDING})")
        if name == "finetune":
            add("--steps", type=int, default=500, help="of 128 windows (default 500)")
    add("--feature", default="last", help="last (default), the stride of a map, or pooled")
    add(
        "--side", type=int, default=0, metavar="PIXELS",
        help="spp: shorter side of what the network sees (default: the image's)",
    )  # fmt: skip
    add = stage("svm", "a linear SVM a class, with hard negative mining")
    add("--c", type=float, default=1e-3, help="weight of the data (default 0.001)")
    add("--rounds", type=int, default=3, help="of mining at most (default 3)")
    add = stage("boxes", "a regression a class that moves windows onto objects")
    add("--penalty", type=float, default=1000, help="of its weights (default 1000)")
    add = stage("evaluate", "find the objects of the test split; average precision and time")
    add("--nms", type=float, default=0.3, help="overlap of suppression (default 0.3)")
    add("--json", metavar="FILE", help="also write the numbers there")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision import tasks
    from jaxvision.runs import rcnn
    from jaxvision.tasks import configuration
    from jaxvision.train import compilation, workdir

    _check(options)
    config = configuration.load(options.config, overrides)
    tasks.require(tasks.TASKS[config.task].task(), "object_rows", "R-CNN")
    compilation.use_cache(config.compilation_cache)
    folder = workdir.checked(options.workdir)
    pool = f" --pool {options.pool}" if getattr(options, "pool", "crop") != "crop" else ""

    def command(stage: str) -> str:
        name, _, _ = _COMMANDS.get(stage, stage).partition("_")
        shared = pool if "_" in stage else ""
        return f"jaxvision rcnn {name} --config {options.config} --workdir {folder}{shared}"

    with workdir.locked(folder):
        stages = rcnn.stages_in(folder, config, command)
        _STAGES[options.stage](config, stages, options)


_COMMANDS = {"network": "finetune"}


def _check(options: argparse.Namespace) -> None:
    """Raises:
    UserError: an option is outside its range.
    """
    if getattr(options, "pool", "crop") not in POOLS:
        raise unknown("pool", options.pool, POOLS)
    least = {
        "train": 0, "test": 0, "limit": 1, "min_side": 0, "crop": 8, "padding": 0, "steps": 1,
        "side": 0, "rounds": 0,
    }  # fmt: skip
    for name, bound in least.items():
        value = getattr(options, name, None)
        if value is not None and value < bound:
            raise UserError(f"--{name.replace('_', '-')}={value} must be at least {bound}.")
    for name in ("c", "penalty", "nms"):
        if not getattr(options, name, 1) > 0:
            raise UserError(f"--{name}={getattr(options, name)} must be positive.")


# -- the stages: each says what it has made --------------------------------------------------------


def _proposals(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn

    names = ("train", "test", "mode", "limit", "min_side")
    settings = {name: getattr(options, name) for name in names}
    record = stages.done("proposals", settings, (), options.again)
    print(_made(record, "proposals"), end="")
    record = record or rcnn.make_proposals(config, stages, settings)
    notes = record.notes
    images = ", ".join(f"{count} of {part}" for part, count in notes["images"].items())
    print(
        f"{notes['proposals']:,} proposals of {images} images; "
        f"{notes['seconds_per_image']:.3f} s an image"
    )
    for part, recall in notes["recall"].items():
        each = ", ".join(f"{value:.3f} of {count}" for count, value in recall.items())
        print(f"  recall of {part} at IoU 0.5: {each}")


def _finetune(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn

    settings = {**_network(config, options), "steps": options.steps}
    record = stages.done("network", settings, ("proposals",), options.again)
    print(_made(record, "network"), end="")
    notes = (record or rcnn.make_network(config, stages, settings)).notes
    print(
        f"{settings['network']} after {settings['steps']} steps: loss {notes['loss']:.3f} of the "
        f"last tenth; {notes['seconds']:.0f} s"
    )


def _network(config: "ConfigDict", options: argparse.Namespace) -> dict[str, Any]:
    from jaxvision.runs import rcnn

    return {
        **rcnn.network_settings(config, options.network or "", options.weights or ""),
        "crop": options.crop or _CROP,
        "padding": _PADDING if options.padding is None else options.padding,
    }


def _features(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn

    stages.require("proposals")
    settings = _network(config, options)
    if stages.read("network"):
        tuned = stages.require("network").settings
        for name in ("network", "weights", "crop", "padding"):
            given = getattr(options, name)
            if given is not None and given != tuned[name]:
                raise UserError(
                    f"The network was fine-tuned with --{name} {tuned[name]}; leave --{name} out."
                )
        settings = {name: tuned[name] for name in settings}
    settings |= {"pool": options.pool, "feature": options.feature, "side": options.side}
    stage = f"features_{options.pool}"
    record = stages.done(stage, settings, ("proposals", "network"), options.again)
    print(_made(record, "features"), end="")
    start = ""
    if not stages.read("network"):
        start = ", not fine-tuned" if settings["weights"] else ", of random weights"
    record = record or rcnn.make_features(config, stages, settings)
    what = "windows" if options.pool == "crop" else "whole images"
    print(
        f"Features ({settings['feature']}) of {what} by {settings['network']}{start}; "
        f"{record.notes['seconds_per_image']:.3f} s an image"
    )


def _svm(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn

    settings = {"pool": options.pool, "c": options.c, "rounds": options.rounds}
    inputs = (f"features_{options.pool}",)
    record = stages.done(f"svm_{options.pool}", settings, inputs, options.again)
    print(_made(record, "SVMs"), end="")
    notes = (record or rcnn.make_svms(config, stages, settings)).notes
    print(
        f"SVMs on {' then '.join(f'{n:,}' for n in notes['samples'])} windows, "
        f"{' then '.join(f'{n:,}' for n in notes['mined'])} hard negatives mined; "
        f"{notes['seconds']:.1f} s"
    )


def _boxes(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn

    settings = {"pool": options.pool, "penalty": options.penalty}
    inputs = (f"features_{options.pool}",)
    record = stages.done(f"boxes_{options.pool}", settings, inputs, options.again)
    print(_made(record, "regression"), end="")
    notes = (record or rcnn.make_boxes(config, stages, settings)).notes
    print(f"Box regression on {notes['windows']:,} windows; {notes['seconds']:.1f} s")


def _evaluate(config: "ConfigDict", stages: "Stages", options: argparse.Namespace) -> None:
    from jaxvision.runs import rcnn
    from jaxvision.train.writers import write_atomically

    found = rcnn.evaluate(config, stages, options.pool, options.nms)
    print("\n".join(table(found.scores, found.seconds)))
    if options.json:
        numbers = {"pool": options.pool, "scores": found.scores, "seconds": found.seconds}
        write_atomically(Path(options.json), json.dumps(numbers, indent=2) + "\n")


def table(scores: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]) -> list[str]:
    """Average precision and the seconds of each stage, to be read."""
    lines = []
    titles = {"windows": "windows as proposed", "boxes": "windows moved"}
    for way, values in scores.items():
        main = [n for n in values if n in ("ap", "ap50", "ap75") or n.startswith("map_voc")]
        each = [n for n in values if n.startswith("ap/")]
        shown = ", ".join(f"{name} {values[name]:.3f}" for name in (*main, *each))
        lines.append(f"{titles[way]}: {shown}")
    lines.append("seconds an image:")
    lines += [f"  {stage:<24}{value:8.3f}" for stage, value in seconds.items()]
    lines.append(f"  {'together':<24}{sum(seconds.values()):8.3f}   ({LECTURE})")
    return lines


def _made(record: Any, what: str) -> str:
    return f"The {what} had been made. " if record else ""


_STAGES = {
    "proposals": _proposals,
    "finetune": _finetune,
    "features": _features,
    "svm": _svm,
    "boxes": _boxes,
    "evaluate": _evaluate,
}
