"""Writes jaxvision/interop/published.json: the weights that others publish for our networks.

    python tests/parity/published.py

For every network of the registry: where each file is and how its images are prepared, as the
installed timm and torchvision say, and for transformers' networks, effdet's and diffusers' as
listed here; nothing is downloaded. Also the class names of ImageNet and Pascal VOC.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))
from parity.references import timm, torchvision

from jaxvision import models

TABLE = ROOT / "jaxvision" / "interop" / "published.json"
CLASSES = {
    "imagenet": ("resnet50", "IMAGENET1K_V1"),
    "voc": ("fcn_resnet50", "COCO_WITH_VOC_LABELS_V1"),
}
# torchvision's networks of these names bring images from ImageNet's mean and deviation to 0.5
# themselves (`transform_input`), where they are given published weights. Ours do not.
_TRANSFORM_INPUT = ("googlenet", "inception_v3")
# torchvision's of these names have batch norms of another epsilon than timm's and ours.
_OTHERS = ("efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_ADE20K = {"crop": 0, "interpolation": "bilinear", **_IMAGENET, "classes": 150, "labels": "ade20k"}
_COCO = {"crop": 0, **_IMAGENET}
# effdet's releases by compound coefficient, and the sides of its images.
_EFFDET = (
    ("34-f153e0cf", 512), ("40-a30f94af", 640), ("43-8107aa99", 768), ("47-0b525f35", 896),
    ("49-f56376d9", 1024), ("51-c79f9be6", 1280), ("52-4eda3773", 1280), ("53-6d1d7a95", 1536),
)  # fmt: skip
EFFDET = {
    f"tf_efficientdet_d{number}": {
        "url": "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
        f"tf_efficientdet_d{number}_{file}.pth",
        "size": size,
        "letterbox": True,
        "interpolation": "bilinear",
        **_COCO,
        "classes": 90,
        "labels": "coco",
    }
    for number, (file, size) in enumerate(_EFFDET)
}
_SETS = {"longest": 1333, "interpolation": "bilinear", **_COCO, "classes": 91, "labels": "coco_ids"}
# On the Hub. Normalised as they were trained: beside BEiT's files is a preprocessor with means of
# 0.5, but its authors trained with mmsegmentation's configuration of ADE20K.
TRANSFORMERS = {
    **{
        f"upernet_swin_{size}": {"hub": f"openmmlab/upernet-swin-{size}", "size": 512, **_ADE20K}
        for size in ("tiny", "small", "base", "large")
    },
    **{
        f"upernet_beit_{size}": {
            "hub": f"microsoft/beit-{size}-finetuned-ade-640-640",
            "size": 640,
            "square": True,
            **_ADE20K,
        }
        for size in ("base", "large")
    },
    **{
        f"detr_{name}": {"hub": f"facebook/detr-{name.replace('net', 'net-').replace('_', '-')}"}
        | {"size": 800, **_SETS}
        for name in ("resnet50", "resnet101", "resnet50_dc5", "resnet101_dc5")
    },
    # The smallest was trained and is evaluated at smaller sizes.
    **{
        f"yolos_{size}": {"hub": f"hustvl/yolos-{size}", "size": side, **_SETS}
        for size, side in (("tiny", 512), ("small", 800), ("base", 800))
    },
    "vit_gpt2": {
        "hub": "nlpconnect/vit-gpt2-image-captioning",
        "size": 224,
        "square": True,
        "crop": 0,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "classes": 50257,
        "tokenizer": "tokenizer.json",
    },
}
# Images in -1..1, of the sizes that the networks were trained on.
_NOISE = {
    "crop": 0,
    "interpolation": "bilinear",
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "classes": 0,
}
DIFFUSERS = {
    "ddpm_cifar10": {"cifar10": {"hub": "google/ddpm-cifar10-32", "size": 32, **_NOISE}},
    "ddpm_256": {
        data: {"hub": f"google/ddpm-{data}-256", "size": 256, **_NOISE}
        for data in ("celebahq", "church", "bedroom")
    },
}


# Images of any size, as they are.
_WHOLE = {
    "size": 0,
    "crop": 0,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "classes": 0,
}
DIFFUSERS |= {
    "autoencoder_kl": {
        f"sd_vae_ft_{kind}": {"hub": f"stabilityai/sd-vae-ft-{kind}", **_WHOLE}
        for kind in ("mse", "ema")
    }
}
# transformers' processors stretch images to squares.
_SQUARE = {"square": True, "crop": 0, "classes": 0}
PRETRAINING = {
    **{
        f"imagegpt_{size}": {
            "imagenet": {
                "hub": f"openai/imagegpt-{size}",
                "size": 32,
                **_SQUARE,
                "interpolation": "bilinear",
                "mean": (0.5,) * 3,
                "std": (0.5,) * 3,
                "palette": "preprocessor_config.json",
            }
        }
        for size in ("small", "medium", "large")
    },
    "flava_image_codebook": {
        "dall_e": {
            "hub": "facebook/flava-image-codebook",
            "size": 112,
            **_SQUARE,
            "interpolation": "lanczos",
            "mean": (0.0,) * 3,
            "std": (1.0,) * 3,
        }
    },
}


# Networks that say what was hidden from them; the size and crop are those of their evaluation.
_PHOTOGRAPHS = {"size": 224, "crop": 0.875, "interpolation": "bicubic"}
RECONSTRUCTION = {
    **{
        f"mae_vit_{size}_224": {
            "vit_mae": {
                "hub": f"facebook/vit-mae-{size.partition('_')[0]}",
                **_PHOTOGRAPHS,
                **_IMAGENET,
                "classes": 0,
            }
        }
        for size in ("base_patch16", "large_patch16", "huge_patch14")
    },
    **{
        f"beit_{size}_patch16_224_mim": {
            "pt22k": {
                "hub": f"microsoft/beit-{size}-patch16-224-pt22k",
                **_PHOTOGRAPHS,
                "mean": (0.5,) * 3,
                "std": (0.5,) * 3,
                "classes": 0,
            }
        }
        for size in ("base", "large")
    },
}


def _names(name: str) -> set[str]:
    """The network's in all libraries."""
    return {name, *(alias for alias, real in models.ALIASES.items() if real == name)}


def of_timm(name: str) -> dict[str, dict]:
    package, found = timm(), {}
    names = [one for one in _names(name) if package.is_model(one)]
    for full in (full for one in names for full in package.list_pretrained(one)):
        config = package.get_pretrained_cfg(full)
        if not config.hf_hub_id or not config.num_classes:
            continue
        hub = config.hf_hub_id
        entry = {
            "hub": hub + full if hub.endswith("/") else hub,
            "size": config.input_size[1],
            "crop": config.crop_pct,
            "interpolation": config.interpolation,
            "mean": config.mean,
            "std": config.std,
            "classes": config.num_classes,
        }
        if config.label_offset:
            entry["background"] = config.label_offset
        found[full.partition(".")[2]] = entry
    return found


def of_torchvision(name: str) -> dict[str, dict]:
    package, found = torchvision(), {}
    names = _names(name)
    modules = package.models, package.models.segmentation, package.models.detection
    known = {other for module in modules for other in package.models.list_models(module)}
    for other in sorted(names & known - set(_OTHERS)):
        choices = package.models.get_model_weights(other)
        if models.variant(name).role == "instances":  # the default first
            choices = sorted(choices, key=lambda one: one is not choices.DEFAULT)
        for weights in choices:
            if models.variant(name).role in ("detection", "instances"):
                found[weights.name] = _of_detector(other, weights)
                continue
            prepare = weights.transforms()
            if models.variant(name).role == "segmentation":
                found[weights.name] = {
                    "url": weights.url,
                    "size": prepare.resize_size[0],
                    "crop": 0,
                    "interpolation": prepare.interpolation.value,
                    "mean": prepare.mean,
                    "std": prepare.std,
                    "classes": len(weights.meta["categories"]),
                    "labels": "voc",
                }
                continue
            if len(prepare.crop_size) != 1:
                continue
            half = [0.5] * 3 if other in _TRANSFORM_INPUT else None
            found[weights.name] = {
                "url": weights.url,
                "size": prepare.crop_size[0],
                "crop": prepare.crop_size[0] / prepare.resize_size[0],
                "interpolation": prepare.interpolation.value,
                "mean": half or prepare.mean,
                "std": half or prepare.std,
                "classes": len(weights.meta["categories"] or range(1000)),
            }
    return found


def _of_detector(name: str, weights: Any) -> dict[str, Any]:
    """A detector of torchvision resizes and normalises images itself."""
    build = getattr(torchvision().models.detection, name)
    inside = build(weights=None, weights_backbone=None).transform
    if inside.fixed_size:
        size: dict[str, Any] = {"size": inside.fixed_size[0], "square": True}
    else:
        size = {"size": inside.min_size[-1], "longest": inside.max_size}
    # Of these two the background is a class of the file and of the network.
    ids = name.startswith(("fcos", "retinanet"))
    persons = name.startswith("keypoint")
    return {
        "url": weights.url,
        **size,
        "crop": 0,
        "interpolation": "bilinear",
        "antialias": False,
        "mean": inside.image_mean,
        "std": inside.image_std,
        "classes": 1 if persons else 91 if ids else 90,
        "labels": "coco_person" if persons else "coco_ids" if ids else "coco",
    }


def of_transformers(name: str) -> dict[str, dict]:
    if name not in TRANSFORMERS:
        return {}
    data = "ade20k" if TRANSFORMERS[name].get("labels") == "ade20k" else "coco"
    return {data: TRANSFORMERS[name]}


def of_effdet(name: str) -> dict[str, dict]:
    return {"coco": EFFDET[name]} if name in EFFDET else {}


def main() -> None:
    table = {
        name: of_torchvision(name)
        | of_timm(name)
        | of_transformers(name)
        | of_effdet(name)
        | DIFFUSERS.get(name, {})
        | RECONSTRUCTION.get(name, {})
        | PRETRAINING.get(name, {})
        for name in models.names()
    }
    table = {name: entries for name, entries in table.items() if entries}
    lines = [
        f'"{name}": {{\n  '
        + ",\n  ".join(f'"{tag}": {json.dumps(entry)}' for tag, entry in entries.items())
        + "\n}"
        for name, entries in table.items()
    ]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for labels, (name, tag) in CLASSES.items():
        weights = torchvision().models.get_model_weights(name)[tag]
        names = [one.strip("_") for one in weights.meta["categories"]]
        TABLE.with_name(f"{labels}_classes.txt").write_text("\n".join(names) + "\n")
    print(f"{TABLE}: {sum(map(len, table.values()))} files of {len(table)} networks")


if __name__ == "__main__":
    main()
