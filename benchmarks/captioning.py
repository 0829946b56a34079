"""Captions a second beside transformers' `generate`: ViT and GPT-2, greedy and by beams.

    python benchmarks/captioning.py [--torch PYTHON] [--json FILE] [--photographs FOLDER]
        [--batches 1 8] [--beams 1 4] [--length 16] [--repeat 10] [--small]

Both sides are given the same weights and photographs, and must say the same before anything is
timed; then their rounds are interleaved. Weights are random, with words so far apart that rounding
decides nothing, and no sequence ends before the full length. Without a folder the photographs are
drawn. `--small` is a network of two narrow layers, to see that everything runs. Each side is a
process of its own: this file, called with the side's name.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, save, table
from workers import Worker, interleaved, serve

sys.path.insert(0, str(Path(__file__).parents[1]))

OURS, TORCH = "ours", "transformers"
SIDE, WORDS, END = 224, 50257, 50256  # of GPT-2: begin, end and padding are one token
# What parts of the decoder are multiplied by, so that one that was never trained says other words
# of other photographs, and others at each place; what is added to the logit of the end.
LARGER = {"ln_f.weight": 15.0, "wpe.weight": 10.0, "crossattention.c_proj.weight": 30.0}
ENDING = -100.0
SMALL = {"width": 64, "depth": 2, "num_heads": 2}


def photographs(folder: Path | None, count: int) -> np.ndarray:
    """uint8 [n, 224, 224, 3]: squares of a folder's first images, or noise of 16 pixels."""
    if folder is None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 14, 14, 3), np.uint8)
        return coarse.repeat(16, 1).repeat(16, 2)
    from PIL import Image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    if len(files) < count:
        sys.exit(f"{folder} has {len(files)} photographs; {count} are wanted.")
    size = (SIDE, SIDE)
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize(size)) for path in files[:count]]
    )


def ours(weights: Path, image: np.ndarray, beams: int, length: int, small: bool) -> Any:
    """(a search that returns tokens [b, length], the versions)."""
    import jax
    import jax.numpy as jnp

    from jaxvision import models
    from jaxvision.interop import torch_weights
    from jaxvision.ops import decoding
    from jaxvision.train.compilation import compiler_options

    options = {**SMALL, "hidden": 256, "encoder_options": SMALL} if small else {}
    model = models.create("vit_gpt2", WORDS, **options)
    like = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3))))
    entry = models.variant("vit_gpt2")
    variables = torch_weights.load(weights, like, entry.convert)
    settings = {"begin": END, "end": END, "pad": END, "length": length}
    find = partial(decoding.beam, beams=beams) if beams > 1 else decoding.greedy

    def search(variables: Any, image: Any) -> Any:
        image = (image.astype(jnp.float32) / 255 - 0.5) / 0.5
        memory = model.apply(variables, image, method="encode")
        cache = model.apply(variables, memory, length, method="start")
        return find(partial(model.apply, variables, method="step"), cache, **settings).tokens

    call = jax.jit(search, compiler_options=compiler_options())
    variables, image = jax.device_put((variables, image))
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    return lambda: np.asarray(call(variables, image)), versions


def spread(decoder: Any) -> None:
    """Makes a GPT-2 say something; see `LARGER`."""
    import torch

    with torch.no_grad():
        for name, value in decoder.named_parameters():
            for part, factor in LARGER.items():
                if name.endswith(part):
                    value *= factor
        end = decoder.wte.weight[END]
        decoder.ln_f.bias += ENDING * end / end.square().sum()


def theirs(weights: Path, image: np.ndarray, beams: int, length: int, small: bool) -> Any:
    """As `ours`, by transformers."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    encoder = transformers.ViTConfig()
    decoder = transformers.GPT2Config(add_cross_attention=True)
    if small:
        encoder = transformers.ViTConfig(
            hidden_size=SMALL["width"],
            num_hidden_layers=SMALL["depth"],
            num_attention_heads=SMALL["num_heads"],
            intermediate_size=4 * SMALL["width"],
        )
        decoder = transformers.GPT2Config(
            n_embd=SMALL["width"],
            n_layer=SMALL["depth"],
            n_head=SMALL["num_heads"],
            add_cross_attention=True,
        )
    model = transformers.VisionEncoderDecoderModel(
        encoder=transformers.ViTModel(encoder, add_pooling_layer=False),
        decoder=transformers.GPT2LMHeadModel(decoder),
    )
    if not weights.exists():
        spread(model.decoder.transformer)
        save_file({name: value.clone() for name, value in model.state_dict().items()}, weights)
    model.load_state_dict(load_file(weights), strict=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)
    pixels = ((image / 255 - 0.5) / 0.5).astype(np.float32)
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device)

    def search() -> np.ndarray:
        with torch.inference_mode():
            found = model.generate(
                pixels,
                num_beams=beams,
                max_new_tokens=length,
                do_sample=False,
                decoder_start_token_id=END,
                bos_token_id=END,
                eos_token_id=END,
                pad_token_id=END,
            )
        tokens = found[:, 1:].cpu().numpy()
        missing = length - tokens.shape[1]
        return np.pad(tokens, ((0, 0), (0, missing)), constant_values=END)

    return search, {"torch": torch.__version__, "transformers": transformers.__version__}


class Searching:
    """What a worker answers with."""

    def __init__(self, side: str):
        self.make = {OURS: ours, TORCH: theirs}[side]
        self.search: Callable[[], np.ndarray]

    def __call__(self, command: str, **message: Any) -> Any:
        return getattr(self, command)(**message)

    def setup(self, weights: str, images: str, **setting: Any) -> dict[str, Any]:
        start = time.perf_counter()
        self.search, versions = self.make(Path(weights), np.load(images), **setting)
        tokens = self.search().tolist()
        return {"tokens": tokens, "setup": time.perf_counter() - start, "versions": versions}

    def run(self) -> float:
        start = time.perf_counter()
        self.search()
        return time.perf_counter() - start


def measure(options: Any, folder: Path, batch: int, beams: int) -> dict[str, Any]:
    """One row.

    Raises:
      RuntimeError: the sides say different things.
    """
    images = folder / f"{batch}.npy"
    np.save(images, photographs(options.photographs, batch))
    setting = {
        "weights": str(folder / "weights.safetensors"),
        "images": str(images),
        "beams": beams,
        "length": options.length,
        "small": options.small,
    }
    pythons = {TORCH: options.torch, OURS: sys.executable}  # transformers makes the weights
    workers: dict[str, Worker] = {}
    row: dict[str, Any] = {"batch": batch, "beams": beams, "length": options.length, "sides": {}}
    try:
        for side, python in pythons.items():
            workers[side] = Worker(python, __file__, side)
            row["sides"][side] = workers[side].ask(command="setup", **setting)
        said = [one.pop("tokens") for one in row["sides"].values()]
        if said[0] != said[1]:
            raise RuntimeError(f"The captions differ: {said}")
        row["words"] = sum(token != END for tokens in said[0] for token in tokens) / batch
        row["different"] = len({tuple(tokens) for tokens in said[0]})
        runs = {side: partial(worker.ask, command="run") for side, worker in workers.items()}
        for side, seconds in interleaved(runs, options.repeat).items():
            row["sides"][side]["seconds"] = seconds
    finally:
        for worker in workers.values():
            worker.close()
    return row


def rate(row: dict[str, Any], side: str) -> float:
    """Captions a second."""
    return row["batch"] / row["sides"][side]["seconds"]


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        [
            f"{'greedy' if row['beams'] == 1 else str(row['beams']) + ' beams'}, "
            f"{row['batch']} x {SIDE} px, {row['length']} tokens",
            *(f"{rate(row, side):.2f}" for side in (OURS, TORCH)),
            f"{rate(row, OURS) / rate(row, TORCH):.2f}",
        ]
        for row in result["rows"]
    ]
    head = ["captions/s", "ours", "transformers' generate", "ours / transformers"]
    network = "two narrow layers" if result["small"] else "ViT-B/16 and GPT-2, 238.6 M parameters"
    return table(head, lines) + f"\n\n{network}, float32; the same captions."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="photographs")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4], help="1 is greedy")
    parser.add_argument("--length", type=int, default=16, help="tokens of a caption at most")
    parser.add_argument("--repeat", type=int, default=10, help="rounds to take the median of")
    parser.add_argument("--small", action="store_true", help="two narrow layers on each side")
    parser.add_argument("--photographs", type=Path, help="a folder of them")
    parser.add_argument("--torch", default=sys.executable, help="a Python that has transformers")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for beams in options.beams:
            for batch in options.batches:
                row = measure(options, Path(folder), batch, beams)
                rows.append(row)
                print(
                    f"{beams} beams, {batch} photographs ({row['different']} captions of "
                    f"{row['words']:.1f} words): ours {rate(row, OURS):.2f}/s, transformers "
                    f"{rate(row, TORCH):.2f}/s, ratio {rate(row, OURS) / rate(row, TORCH):.2f}",
                    flush=True,
                )
                told = {k: v for one in row["sides"].values() for k, v in one["versions"].items()}
                save(options.json, "captioning", rows, machine(**told), small=options.small)


if __name__ == "__main__":
    if sys.argv[1:] in ([OURS], [TORCH]):
        serve(Searching(sys.argv[1]))
    else:
        main()
