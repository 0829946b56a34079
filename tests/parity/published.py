"""Writes jaxvision/interop/published.json: the weights that timm and torchvision publish.

    python tests/parity/published.py

For every network of the registry: where each file is and how its images are prepared, as the
installed packages say; nothing is downloaded. Also the 1000 class names of ImageNet.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))
from parity.references import timm, torchvision

from jaxvision import models

TABLE = ROOT / "jaxvision" / "interop" / "published.json"
CLASSES = ROOT / "jaxvision" / "interop" / "imagenet_classes.txt"


def of_timm(name: str) -> dict[str, dict]:
    package, found = timm(), {}
    if not package.is_model(name):
        return found
    for full in package.list_pretrained(name):
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
    names = {name, *(alias for alias, real in models.ALIASES.items() if real == name)}
    for other in sorted(names & set(package.models.list_models(package.models))):
        for weights in package.models.get_model_weights(other):
            prepare = weights.transforms()
            if len(prepare.crop_size) != 1:
                continue
            found[weights.name] = {
                "url": weights.url,
                "size": prepare.crop_size[0],
                "crop": prepare.crop_size[0] / prepare.resize_size[0],
                "interpolation": prepare.interpolation.value,
                "mean": prepare.mean,
                "std": prepare.std,
                "classes": len(weights.meta["categories"] or range(1000)),
            }
    return found


def main() -> None:
    table = {name: of_torchvision(name) | of_timm(name) for name in models.names()}
    table = {name: entries for name, entries in table.items() if entries}
    lines = [
        f'"{name}": {{\n  '
        + ",\n  ".join(f'"{tag}": {json.dumps(entry)}' for tag, entry in entries.items())
        + "\n}"
        for name, entries in table.items()
    ]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    weights = torchvision().models.ResNet50_Weights.IMAGENET1K_V1
    CLASSES.write_text("\n".join(weights.meta["categories"]) + "\n")
    print(f"{TABLE}: {sum(map(len, table.values()))} files of {len(table)} networks")


if __name__ == "__main__":
    main()
