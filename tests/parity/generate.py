"""Runs the PyTorch references and writes what the tests compare with.

    python tests/parity/generate.py [CASE ...] [torch_files] [adapted] [segmentation] [saliency]
        [schedules] [other_names]

A case (all of them, if none is named): tests/parity/golden/CASE.npz with logits and features in
evaluation mode; for some, loss, gradients and running statistics of one training step.
`torch_files`: tests/interop/data, one dict of many kinds of tensors in both formats of torch.save.
`adapted`: adapted.npz, weights that timm fits to other images. `segmentation`: segmentation.npz,
losses and metrics of label maps. `saliency`: saliency.npz, what captum 0.9.0 (which imports
matplotlib) propagates back to images. `schedules`: schedules.npz, learning rates by step.
`other_names`: other_names.npz, networks by the names of other libraries. See README.md for the
environment, and for detection_ops.npz, which wants another one.
"""

import argparse
import collections
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import safetensors.torch
import torch
from parity.case import Case
from parity.cases import CASES, FEATURES, GOLDEN, GRADIENTS, LOGITS, family
from parity.deterministic import image, labels, sample, weights
from parity.references import timm, torchvision

COUNTED = (
    "alexnet",
    "vgg16",
    "vgg16_bn",
    "squeezenet1_0",
    "googlenet",
    "inception_v3",
    "inception_v4",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "seresnet50",
    "densenet121",
    "mobilenet_v2",
    "shufflenet_v2_x1_0",
    "legacy_xception",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224",
    "beit_base_patch16_224",
)
FILES = Path(__file__).parents[1] / "interop" / "data"
SCHEDULE_STEPS = (1, 2, 3, 10, 1000)


def prepared(name: str, case: Case) -> torch.nn.Module:
    """The reference with deterministic weights, and without dropout and stochastic depth."""
    torch.set_num_threads(1)
    network = family(name).build(name, case)
    # `named_parameters` knows a layer that is registered twice by its first name only; so do we.
    kept = network.state_dict()  # buffers that are not are computed, like attention masks
    buffers = {name: value for name, value in network.named_buffers() if name in kept}
    state = dict(network.named_parameters()) | buffers
    with torch.no_grad():
        for key, value in state.items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d | torch.nn.Dropout3d):
            module.p = 0.0
        if hasattr(module, "drop_prob"):  # timm's stochastic depth
            module.drop_prob = 0.0
    return network


def logits_of(output: Any) -> torch.Tensor:
    """The logits among what a network returns; of several heads in a row the last one's."""
    if isinstance(output, list):
        return output[-1]
    if isinstance(output, dict):
        return output["out"] if "out" in output else output["logits"]
    return output


def forward(
    network: torch.nn.Module, layers: Sequence[str], x: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits, and what the named layers put out when they are first called."""
    found: dict[str, torch.Tensor] = {}

    def keep(layer: str, output: torch.Tensor) -> None:
        found.setdefault(layer, output.clone())

    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: keep(layer, output)
        )
        for layer in layers
    ]
    with torch.no_grad():
        logits = logits_of(network.eval()(x))
    for hook in hooks:
        hook.remove()
    return logits.movedim(1, -1), [found[layer] for layer in layers]


def outcome(
    name: str, case: Case, draw: int, dtype: torch.dtype, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Logits and features, and what one training step makes, computed in `dtype`.

    `scale` multiplies the image.
    """
    network = prepared(name, case).to(dtype)
    x = torch.from_numpy(image(case.image, draw)).to(dtype) * scale
    logits, maps = forward(network, case.features, x)
    to_map = getattr(family(name), "feature_map", lambda value, case: value.movedim(1, -1))
    maps = [to_map(value, case).numpy() for value in maps]
    parameters = dict(sorted(network.named_parameters()))
    statistics = {k: b for k, b in sorted(network.named_buffers()) if "running" in k}
    found = {
        "draw": np.array(draw),
        "shapes": np.array(json.dumps({k: p.shape for k, p in parameters.items()})),
        "statistics_shapes": np.array(json.dumps({k: b.shape for k, b in statistics.items()})),
        "logits": sample(logits.numpy(), LOGITS),
        "logits_shape": np.array(logits.shape),
        "features_shapes": np.array(json.dumps([value.shape for value in maps])),
        "features": np.concatenate([[], *(sample(value, FEATURES) for value in maps)]),
    }
    if not case.gradients:
        return found
    truth = torch.from_numpy(labels(tuple(logits.shape[:-1]), case.classes))
    output = network.train()(x)
    heads = output if isinstance(output, list) else [logits_of(output)]
    loss = sum(torch.nn.functional.cross_entropy(head, truth) for head in heads)
    loss.backward()
    gradients = [p.grad.numpy() for p in parameters.values()]
    return found | {
        "loss": loss.detach().numpy(),
        "norms": np.array([np.linalg.norm(g) for g in gradients]),
        "gradients": np.concatenate([sample(g, GRADIENTS) for g in gradients]),
        "statistics": np.concatenate(
            [[], *(sample(s.numpy(), GRADIENTS) for s in statistics.values())]
        ),
    }


def alike(exact: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float) -> bool:
    """Whether the norms of the gradients are the same."""
    # A parameter that the next norm takes out again has a gradient of nothing but rounding.
    rounding = 1e-6 * exact["norms"].max()
    return np.allclose(exact["norms"], other["norms"], tolerance, rounding)


def golden(name: str) -> None:
    """Writes one case's file.

    Values are of float64. An image is drawn again if float32 gives other gradients: then a ReLU's
    input is so near zero that rounding decides its slope, on which no two programs need agree.
    Machines round differently, which images that differ by a few roundings stand for.
    """
    case = CASES[name]
    for draw in range(40):
        exact, single = (outcome(name, case, draw, t) for t in (torch.float64, torch.float32))
        if not case.gradients:
            break
        scales = (1 + k * 2.0**-21 for k in (-4, -3, -2, -1, 1, 2, 3, 4))
        shaken = (outcome(name, case, draw, torch.float32, scale) for scale in scales)
        if alike(exact, single, 1e-5) and all(alike(exact, one, 1e-4) for one in shaken):
            break
    else:
        raise RuntimeError(f"{name}: float32 is unlike float64 on every image; cut its depth.")
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / f"{name}.npz",
        **{k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in exact.items()},
    )
    largest = np.abs(exact["logits"]).max()
    rounding = np.abs(exact["logits"] - single["logits"]).max() / largest
    size = (GOLDEN / f"{name}.npz").stat().st_size
    print(
        f"{name}: draw {draw}, logits up to {largest:.3g}, float32 off by {rounding:.1e}, "
        f"{size} bytes"
    )


def torch_files() -> None:
    """Writes the dict whose values tests/interop/test_torch_file.py works out by itself."""
    ramp = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = collections.OrderedDict(
        float32=ramp,
        float64=ramp.double() / 3,
        float16=ramp.half(),
        bfloat16=ramp.bfloat16() * 1.5,
        int64=torch.arange(-3, 4),
        uint8=torch.arange(5, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        complex64=torch.complex(ramp[0], ramp[1]),
        transposed=ramp.t(),
        row_of_shared=ramp[2],
        column_of_shared=ramp[:, 1],
        strided=ramp[::2, 1::3],
        scalar=torch.tensor(2.5),
        bfloat16_scalar=torch.tensor(2.5, dtype=torch.bfloat16),
        empty=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.tensor([1.0, -1.0])),
    )
    state._metadata = {"": {"version": 1}}
    content = {
        "epoch": 7,
        "best": 0.5,
        "nested": {"list": [ramp[0], "text", None]},
        "state_dict": state,
    }
    FILES.mkdir(exist_ok=True)
    for zipped in (True, False):
        path = FILES / ("zip.pt" if zipped else "legacy.pt")
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    torch.save({"layer": torch.nn.Linear(1, 1)}, FILES / "module.pt")
    tagged = torch.nn.Parameter(ramp[1].clone())
    tagged.note = "attributes are pickled with a tensor"
    training = {
        "model": {"weight": ramp, "tagged": tagged, "array": ramp.t().numpy()},
        "model_ema": {"weight": ramp * 2},
        "args": argparse.Namespace(lr=0.1, output=Path("runs")),
        "best_acc1": np.float64(0.75),
        "seen": {1, 2},
        "meters": collections.defaultdict(list, loss=[np.float32(0.5)]),
        "counter": collections.Counter("aab"),
        "dtype": torch.float16,
        "big_endian": np.arange(3, dtype=">i4"),
        "words": np.array(["a", "b"]),
        "raw": b"\xff\x00",
    }
    for zipped in (True, False):
        path = FILES / f"training_{'zip' if zipped else 'legacy'}.pt"
        torch.save(training, path, _use_new_zipfile_serialization=zipped)
    kinds = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint16")
    numbers = torch.tensor([1.0, 1.5, 20.0, 0.25])
    content = {kind: numbers.to(getattr(torch, kind)) for kind in kinds}
    torch.save(content, FILES / "new_kinds.pt")
    safetensors.torch.save_file(content, FILES / "new_kinds.safetensors")
    print(f"torch files in {FILES}")


def adapted() -> None:
    """Writes what timm makes of weights for other images: tests/test_pretrained.py compares."""
    timm()
    from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
    from timm.models import adapt_input_conv
    from torch.nn.functional import interpolate

    found = {}
    positions = torch.from_numpy(weights("pos_embed", (1, 2 + 6 * 6, 5)))
    for rows, columns in ((4, 4), (9, 7), (12, 3)):
        value = resample_abs_pos_embed(positions, (rows, columns), (6, 6), 2)
        found[f"positions_{rows}x{columns}"] = value.numpy()
    for old, new in (((2, 8), (4, 4)), ((3, 5), (6, 4)), ((14, 28), (7, 9))):
        positions = torch.from_numpy(weights("pos_embed", (1, 1 + old[0] * old[1], 3)))
        value = resample_abs_pos_embed(positions, new, old, 1)
        found[f"positions_{old[0]}x{old[1]}_{new[0]}x{new[1]}"] = value.numpy()
    table = torch.from_numpy(weights("table", (13 * 13 + 3, 3)))
    for rows, columns in ((4, 6), (12, 5)):
        spans = (2 * rows - 1, 2 * columns - 1)
        value = resize_rel_pos_bias_table(table, (rows, columns), (spans[0] * spans[1] + 3, 3))
        found[f"bias_{rows}x{columns}"] = value.numpy()
        places = table[:-3].reshape(1, 13, 13, 3).permute(0, 3, 1, 2)  # as in transformers' BEiT
        places = interpolate(places, spans, mode="bilinear").permute(0, 2, 3, 1).flatten(0, 2)
        found[f"bilinear_{rows}x{columns}"] = torch.cat([places, table[-3:]]).numpy()
    for extra in (0, 3):
        table = torch.from_numpy(weights("table", (13 * 13 + extra, 3)))
        for side in (4, 6, 9, 12):
            shape = ((2 * side - 1) ** 2 + extra, 3)
            value = resize_rel_pos_bias_table(table, (side, side), shape)
            found[f"bias_{extra}_{side}"] = value.numpy()
    kernel = torch.from_numpy(weights("conv.weight", (4, 3, 2, 2)))
    for channels in (1, 2, 4, 8):
        found[f"channels_{channels}"] = adapt_input_conv(channels, kernel).numpy()
    np.savez_compressed(GOLDEN.parent / "adapted.npz", **found)
    print(f"adapted.npz: {len(found)} arrays")


def operations() -> None:
    """Writes multiply-adds of whole networks as fvcore counts them: tests/inspect compares."""
    import logging

    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    found = {}
    for name in COUNTED:
        module = timm().create_model(name) if timm().is_model(name) else None
        if module is None or name in torchvision().models.list_models():
            options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
            module = (
                getattr(torchvision().models, name)(init_weights=True, **options)
                if (options)
                else getattr(torchvision().models, name)()
            )
        for part in module.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = False  # fvcore knows products, not PyTorch's fused attention
        side = 299 if name in ("inception_v3", "inception_v4", "legacy_xception") else 224
        analysis = FlopCountAnalysis(module.eval(), torch.zeros(1, 3, side, side))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        found[name] = analysis.by_operator()
        print(name, int(analysis.total()))
    text = json.dumps({k: {o: int(c) for o, c in v.items()} for k, v in found.items()}, indent=1)
    (GOLDEN.parent / "fvcore.json").write_text(text + "\n")


def saliency() -> None:
    """Writes what captum propagates back to images: tests/inspect/test_features.py compares."""
    import copy
    import warnings

    from captum.attr import Deconvolution, GuidedBackprop, Saliency

    warnings.filterwarnings("ignore", message="Setting (forward|backward)")
    methods = {"gradient": Saliency, "deconvnet": Deconvolution, "guided": GuidedBackprop}

    class Unit(torch.nn.Module):
        """The strongest place of a channel of an early layer."""

        def __init__(self, layers: torch.nn.Module, channel: int):
            super().__init__()
            self.layers, self.channel = layers, channel

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)[:, self.channel].flatten(1).amax(1)[:, None]

    def attributions(network: torch.nn.Module, x: torch.Tensor, target: int) -> dict:
        found = {}
        for rule, method in methods.items():
            options = {"abs": False} if rule == "gradient" else {}
            explainer = method(copy.deepcopy(network))
            found[rule] = explainer.attribute(x.clone().requires_grad_(), target, **options)
        return found

    found = {}
    for name in ("vgg11", "resnet18"):
        case = CASES[name]
        network = prepared(name, case).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False  # captum hooks what goes into them
        units = {"logit": (network, 3)}
        if name == "vgg11":
            units["unit"] = (Unit(network.features[:12], 7), 0)
        for draw in range(20):
            x = torch.from_numpy(image(case.image, draw))[:1]
            values, errors = {}, []
            for unit, (part, target) in units.items():
                exact = attributions(part.double(), x.double(), target)
                single = attributions(part.float(), x, target)
                for rule, value in exact.items():
                    values[f"{name}_{unit}_{rule}"] = value[0].numpy()
                    errors.append(float((single[rule] - value).abs().max() / value.abs().max()))
            if max(errors) < 1e-4:
                break
        else:
            raise RuntimeError(f"{name}: float32 is unlike float64 on every image.")
        print(f"{name}: draw {draw}, float32 off by {max(errors):.1e}")
        found[f"{name}_draw"] = np.array(draw)
        found |= {k: sample(v, LOGITS).astype(np.float32) for k, v in values.items()}
        found[f"{name}_shapes"] = np.array(
            json.dumps({k: tuple(v.shape) for k, v in network.state_dict().items()})
        )
    np.savez_compressed(GOLDEN.parent / "saliency.npz", **found)
    print(f"saliency.npz: {(GOLDEN.parent / 'saliency.npz').stat().st_size} bytes")


def segmentation() -> None:
    """Writes losses and metrics of label maps: tests/losses and tests/metrics compare.

    Losses of segmentation_models_pytorch and MONAI, and what torchmetrics makes of random label
    maps and of hard ones: absent classes, all void, one pixel.
    """
    from parity.references import segmentation_models
    from parity.segmentation import CLASSES, VOID, maps

    smp = segmentation_models().losses  # first, as it imports torchvision
    import monai
    from torchmetrics.classification import MulticlassConfusionMatrix
    from torchmetrics.functional import classification as functional

    found = {}
    for name, (scores, truth) in maps().items():
        logits = torch.from_numpy(scores).movedim(-1, 1).requires_grad_()
        true, guess = torch.from_numpy(truth).long(), torch.from_numpy(scores.argmax(-1))
        options = {"num_classes": CLASSES, "ignore_index": VOID}
        void = bool((true == VOID).all())
        matrix = MulticlassConfusionMatrix(**options)
        found[f"{name}/confusion"] = matrix(guess, true).numpy()
        if not void:
            each = functional.multiclass_jaccard_index(guess, true, average="none", **options)
            found[f"{name}/iou"] = each.numpy()
            for key, average in (("miou", "macro"), ("fwiou", "weighted")):
                value = functional.multiclass_jaccard_index(guess, true, average=average, **options)
                found[f"{name}/{key}"] = value.numpy()
            for key, average in (("pixel_accuracy", "micro"), ("recall", "none")):
                value = functional.multiclass_accuracy(guess, true, average=average, **options)
                found[f"{name}/{key}"] = value.numpy()
        shared = {"mode": "multiclass", "from_logits": True, "ignore_index": VOID}
        losses = {
            "dice": smp.DiceLoss(**shared),
            "soft_iou": smp.JaccardLoss(mode="multiclass", from_logits=True),
            "tversky": smp.TverskyLoss(**shared, alpha=0.3, beta=0.7),
            "lovasz": smp.LovaszLoss(mode="multiclass", ignore_index=VOID),
        }
        if (true == VOID).any():
            del losses["soft_iou"]  # which knows no void there
        if void:
            losses = {}
        for key, loss in losses.items():
            value = loss(logits, true)
            (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
            found[f"{name}/{key}"] = value.detach().numpy()
            found[f"{name}/{key}_gradient"] = gradient.movedim(1, -1).numpy()
        if not (true == VOID).any():
            focal = monai.losses.FocalLoss(use_softmax=True, to_onehot_y=True, reduction="none")
            each = focal(logits, true[:, None]).detach()
            found[f"{name}/focal"] = each.sum(1).numpy()
            squared = monai.losses.DiceLoss(
                softmax=True, to_onehot_y=True, squared_pred=True, batch=True, reduction="none",
                smooth_nr=0.0, smooth_dr=1e-12,
            )  # fmt: skip
            found[f"{name}/squared_dice"] = (
                squared(logits, true[:, None]).detach().flatten().numpy()
            )
    np.savez_compressed(GOLDEN.parent / "segmentation.npz", **found)
    size = (GOLDEN.parent / "segmentation.npz").stat().st_size
    print(f"segmentation.npz: {len(found)} arrays, {size} bytes")


def schedules() -> None:
    """Writes schedules.npz: at most 41 rates of torch's schedules over SCHEDULE_STEPS steps."""
    from torch.optim import lr_scheduler

    def rates(steps: int, make: Any) -> np.ndarray:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        schedule, found = make(optimizer, steps), []
        for _ in range(steps):
            found.append(schedule.get_last_lr()[0])
            optimizer.step()
            if len(found) < steps:
                schedule.step()
        return np.float32(found)[np.linspace(0, steps - 1, min(steps, 41)).round().astype(int)]

    def part(steps: int, share: float) -> int:
        return max(1, round(share * steps))  # as a duration in percent is read

    kinds = {
        "one_cycle": lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, total_steps=n),
        "cosine": lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, eta_min=0.001),
        "polynomial": lambda o, n: lr_scheduler.PolynomialLR(o, n, power=0.9),
        "step": lambda o, n: lr_scheduler.MultiStepLR(o, [part(n, 0.5), part(n, 0.75)]),
    }
    found = {
        f"{name}/{steps}": rates(steps, make)
        for name, make in kinds.items()
        for steps in SCHEDULE_STEPS
    }
    np.savez_compressed(GOLDEN.parent / "schedules.npz", **found)
    size = (GOLDEN.parent / "schedules.npz").stat().st_size
    print(f"schedules.npz: {len(found)} arrays, {size} bytes")


def other_names() -> None:
    """Writes other_names.npz: networks under other libraries' names, for tests/interop.

    Small transformers, with their logits, as their modules and as their files call the parameters;
    and the names and shapes that the constructors have which export-torch prints.
    """
    import tempfile

    from parity.exports import EXPORTS, FRACTION, TRANSFORMERS, network
    from parity.references import transformers
    from safetensors.torch import load_file

    def shapes(state: dict[str, torch.Tensor]) -> np.ndarray:
        text = json.dumps({name: tuple(value.shape) for name, value in state.items()})
        return np.frombuffer(text.encode(), np.uint8)

    found = {}
    for kind, (config, sizes) in TRANSFORMERS.items():
        torch.manual_seed(0)
        package = transformers()
        model = getattr(package, kind)(getattr(package, config)(**sizes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                values = torch.randn(parameter.shape) * FRACTION / 2
                parameter.copy_(values.round().clamp(-127, 127) / FRACTION)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            saved = load_file(Path(folder) / "model.safetensors")
        for form, state in {"module": model.state_dict(), "file": saved}.items():
            flat = torch.cat([value.flatten() for value in state.values()])
            found[f"{kind}/{form}/shapes"] = shapes(state)
            found[f"{kind}/{form}/values"] = (flat * FRACTION).to(torch.int8).numpy()
        side = sizes["image_size"]
        with torch.no_grad():
            logits = model(torch.from_numpy(image((2, 3, side, side)))).logits
        found[f"{kind}/logits"] = logits.numpy()
    for export in EXPORTS:
        found[f"names/{export.call}"] = shapes(network(export.call).state_dict())
    path = GOLDEN.parent / "other_names.npz"
    np.savez_compressed(path, **found)
    print(f"{path.name}: {len(found)} arrays, {path.stat().st_size} bytes")


OTHERS = {
    "other_names": other_names,
    "schedules": schedules,
    "torch_files": torch_files,
    "adapted": adapted,
    "operations": operations,
    "saliency": saliency,
    "segmentation": segmentation,
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or [*CASES, *OTHERS]:
        OTHERS[wanted]() if wanted in OTHERS else golden(wanted)
