"""A self-supervised training step in one process: the worker of benchmarks/pretraining.py.

    python benchmarks/pretraining_steps.py SIDE [--keep-memory]

As benchmarks/steps.py. Weights are PyTorch's random ones; both train by SGD with momentum.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from steps import (
    COMPILE,
    EAGER,
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    STD,
    TORCH,
    Side,
    compiled_run,
    work,
)

METHODS = {"mae": "MAE, ViT-S/16", "dino": "DINO, ViT-S/16"}
PATCH, WIDTH, DEPTH, HEADS = 16, 384, 12, 6
ENCODER = "vit_small_patch16_224"
DECODER = {"width": 512, "depth": 8, "num_heads": 16}
MASKED = 0.75
PROTOTYPES, HIDDEN, BOTTLENECK, LOCAL_VIEWS = 65536, 2048, 256, 4
STUDENT, TEACHER, MOMENTUM_OF_TEACHER, CENTER = 0.1, 0.04, 0.996, 0.9


def views(batch: int, count: int, size: int) -> np.ndarray:
    """uint8 [b, v, h, w, 3], the same on all sides."""
    shape = (batch, count, size, size, 3)
    return np.random.default_rng(count).integers(0, 256, shape, np.uint8)


def noise(batch: int, size: int) -> np.ndarray:
    """Which decides what MAE hides, float32 [b, n]."""
    return np.random.default_rng(9).random((batch, (size // PATCH) ** 2), np.float32)


def local(size: int) -> int:
    """Side of a local view."""
    return size * 3 // 7 // PATCH * PATCH


# -- JAX ------------------------------------------------------------------------------------------


def jax_side(
    method: str, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """(a step that returns its loss, on the device; what compiling told)."""
    import jax
    import jax.numpy as jnp

    from jaxvision import models
    from jaxvision.interop import torch_weights
    from jaxvision.tasks.inputs import Inputs
    from jaxvision.train.compilation import compiler_options

    more: dict[str, Any] = {} if dtype == "float32" else {"dtype": jnp.dtype(dtype)}
    inputs, convert = Inputs((MEAN,), (STD,)), dict
    data = {"valid": jnp.ones(batch, bool)}
    if method == "mae":
        from jaxvision.ops.masking import hidden_patches, kept_patches
        from jaxvision.tasks.pretraining.mae import Mae
        from jaxvision.tasks.pretraining.reconstruction import Question

        given = jnp.asarray(noise(batch, size))

        class Given(Mae):
            """What is hidden is given."""

            def ask(self, image: Any, key: Any) -> Any:
                kept = kept_patches(given, int(given.shape[1] * (1 - MASKED)))
                return Question(image, {"kept": kept}, hidden_patches(kept, given.shape[1]))

        entry = models.variant("mae_vit_base_patch16_224")
        options = {**entry.options["encoder_options"], **more}
        model = models.create(
            "mae_vit_base_patch16_224",
            encoder=ENCODER,
            encoder_options=options,
            **DECODER,
            **more,
        )
        task: Any = Given(model, inputs=inputs)
        data["image"], convert = jnp.asarray(views(batch, 1, size)[:, 0]), entry.convert
    else:
        from jaxvision.models.pretraining.dino import DinoHead, WithHead
        from jaxvision.tasks.pretraining.dino import Dino

        head = DinoHead(PROTOTYPES, HIDDEN, BOTTLENECK)
        task = Dino(
            WithHead(models.create(ENCODER, 0, **more), head),
            inputs=inputs,
            teacher_momentum=MOMENTUM_OF_TEACHER,
        )
        data["views_global"] = jnp.asarray(views(batch, 2, size))
        data["views_local"] = jnp.asarray(views(batch, LOCAL_VIEWS, local(size)))
    like = jax.eval_shape(partial(task.init, jax.random.key(0)), data)
    loaded = torch_weights.load(weights, {"params": like["params"]}, convert)
    variables = {
        kind: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
        for kind, tree in like.items()
    }
    variables["params"] = jax.tree.map(jnp.asarray, loaded["params"])
    if "teacher" in variables:
        variables["teacher"] = jax.tree.map(jnp.copy, variables["params"])
    return compiled_run(task, variables, data, None, compiler_options(), counted=False)


# -- PyTorch --------------------------------------------------------------------------------------


def torch_side(
    side: str, method: str, batch: int, size: int, dtype: str, train: bool, weights: Path
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """As `jax_side`, by transformers, or timm and the authors' heads."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, loss_of = (_mae if method == "mae" else _dino)(batch, size, device)
    if not weights.exists():
        save_file({name: v.contiguous() for name, v in network.state_dict().items()}, weights)
    network.load_state_dict(load_file(weights), strict=True)
    form = torch.contiguous_format if side == EAGER else torch.channels_last
    network = network.to(device, memory_format=form).train()
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
    compute = loss_of(network)
    call = torch.compile(compute) if side == COMPILE else compute
    after = getattr(loss_of, "after", None)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        with precision:
            loss = call()
        loss.backward()
        optimizer.step()
        if after is not None:
            after(network)
        return loss.detach()

    return step, {"versions": {"torch": torch.__version__}}


def _pixels(array: np.ndarray, device: Any) -> Any:
    """[v, b, 3, h, w], normalised."""
    import torch

    pixels = torch.from_numpy(array).to(device).permute(1, 0, 4, 2, 3).float() / 255
    return (pixels - MEAN) / STD


def _mae(batch: int, size: int, device: Any) -> tuple[Any, Any]:
    import torch
    import transformers

    network = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            image_size=size,
            patch_size=PATCH,
            decoder_hidden_size=DECODER["width"],
            decoder_num_hidden_layers=DECODER["depth"],
            decoder_num_attention_heads=DECODER["num_heads"],
            decoder_intermediate_size=4 * DECODER["width"],
            mask_ratio=MASKED,
            norm_pix_loss=True,
            layer_norm_eps=1e-6,
        )
    )
    image = _pixels(views(batch, 1, size), device)[0]
    given = torch.from_numpy(noise(batch, size)).to(device)
    return network, lambda network: lambda: network(image, noise=given).loss


def _dino(batch: int, size: int, device: Any) -> tuple[Any, Any]:
    import torch
    from torch import nn
    from torch.nn.functional import log_softmax, softmax

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from parity.networks.dino import DinoHead
    from parity.references import timm

    vit = timm().models.vision_transformer.VisionTransformer(
        img_size=size,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        num_classes=0,
        dynamic_img_size=True,
    )
    head = DinoHead(WIDTH, PROTOTYPES, HIDDEN, BOTTLENECK, False)
    nn.init.trunc_normal_(head.last_layer.weight_v, std=0.02)
    student = nn.ModuleDict({"backbone": vit, "head": head})
    crops = [
        _pixels(array, device).flatten(0, 1)
        for array in (views(batch, 2, size), views(batch, LOCAL_VIEWS, local(size)))
    ]

    class Loss:
        """The loss of a step, and what follows it."""

        def __init__(self) -> None:
            self.teacher: Any = None
            self.center = torch.zeros(1, PROTOTYPES, device=device)

        def __call__(self, network: Any) -> Any:
            self.teacher = deepcopy(network).requires_grad_(False)
            return partial(self.compute, network)

        def compute(self, network: Any) -> Any:
            with torch.no_grad():
                taught = self.teacher["head"](self.teacher["backbone"](crops[0]))
                targets = softmax((taught - self.center) / TEACHER, -1).chunk(2)
                self.taught = taught
            vectors = torch.cat([network["backbone"](crop) for crop in crops])
            said = log_softmax(network["head"](vectors) / STUDENT, -1).chunk(2 + LOCAL_VIEWS)
            terms = [
                -(target * output).sum(-1).mean()
                for t, target in enumerate(targets)
                for s, output in enumerate(said)
                if s != t
            ]
            return sum(terms) / len(terms)

        def after(self, network: Any) -> None:
            with torch.no_grad():
                own, new = list(self.teacher.parameters()), list(network.parameters())
                torch._foreach_mul_(own, MOMENTUM_OF_TEACHER)
                torch._foreach_add_(own, new, alpha=1 - MOMENTUM_OF_TEACHER)
                mean = self.taught.mean(0, keepdim=True)
                self.center = self.center * CENTER + mean * (1 - CENTER)

    return student, Loss()


class MethodSide(Side):
    """What the worker answers with."""

    def make(self, network: str, *setting: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
        if self.side in TORCH:
            return torch_side(self.side, network, *setting)
        return jax_side(network, *setting)


if __name__ == "__main__":
    work(MethodSide)
