"""Decoding beside `generate` of transformers, on a small `VisionEncoderDecoderModel`.

    python tests/parity/decoding.py

writes tests/parity/golden/decoding.npz: of each case the logits of some tokens, the loss if each
is to be followed by the next, some of every parameter's gradient and its norm, and of each setting
the sequences that `generate` finds and their scores. Weights are such that sequences end early and
late, and that float32 and float64 find the same. See README.md for the environment.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import image, labels, sample, weights

GRADIENTS = 4  # values kept of each parameter's gradient
GOLDEN = Path(__file__).parent / "golden" / "decoding.npz"
VOCABULARY, POSITIONS = 19, 64
# Fields of `jaxvision.models.create("vit_gpt2", ...)`.
OPTIONS = {
    "width": 24,
    "depth": 2,
    "num_heads": 2,
    "hidden": 96,
    "max_tokens": POSITIONS,
    "dropout": 0.0,
    "encoder_options": {"width": 16, "depth": 1, "num_heads": 2, "patch_size": 8},
}
SIDES = (16, 24)
_TABLE, _POSITIONS, _BIAS = (
    f"decoder.transformer.{name}" for name in ("wte.weight", "wpe.weight", "ln_f.bias")
)


@dataclass(frozen=True)
class Setting:
    """How sequences are found; see `jaxvision.ops.decoding.beam`. One beam is greedy."""

    beams: int = 4
    length: int = 12
    length_penalty: float = 1.0
    early_stopping: Any = False
    no_repeat_ngram_size: int = 0


@dataclass(frozen=True)
class Case:
    """Images and special tokens.

    Attributes:
      batch: how many images.
      begin, end, pad: tokens.
      sharpness: what the matrix of words is multiplied by.
      ending: what is added to the logit of the end.
    """

    batch: int
    begin: int
    end: int
    pad: int
    sharpness: float = 1.0
    ending: float = 0.0


# GPT-2 has one token for all three.
CASES = {
    "one": Case(1, 1, 2, 3, 1.2, 0.5),
    "several": Case(5, 4, 7, 3, 1.5, 2.2),
    "gpt2": Case(3, 18, 18, 18, 1.0, 1.5),
}
SETTINGS = {
    "greedy": Setting(1),
    "greedy_ngrams": Setting(1, no_repeat_ngram_size=2),
    "two": Setting(2),
    "four": Setting(4),
    "four_early": Setting(4, early_stopping=True),
    "four_never": Setting(4, early_stopping="never", length_penalty=1.5),
    "five_long": Setting(5, length=40, length_penalty=2.0),
    "three_short": Setting(3, length_penalty=-1.0, early_stopping=True),
    "three_sum": Setting(3, length_penalty=0.0),
    "four_ngrams": Setting(4, length=30, no_repeat_ngram_size=2),
    "two_ngrams": Setting(2, length=30, no_repeat_ngram_size=3, early_stopping=True),
}


def state(shapes: Mapping[str, tuple[int, ...]], case: Case) -> dict[str, np.ndarray]:
    """The weights of a case by the reference's names."""
    found = {name: weights(name, tuple(shape)) for name, shape in shapes.items()}
    table = weights(_TABLE, (VOCABULARY, OPTIONS["width"])) * np.float32(case.sharpness)
    found |= {name: table for name in (_TABLE, "decoder.lm_head.weight") if name in found}
    found[_BIAS] += case.ending * table[case.end] / np.square(table[case.end]).sum()
    found[_POSITIONS] *= 3  # so that words are not said again and again
    return found


def images(case: Case) -> np.ndarray:
    return image((case.batch, 3, *SIDES))


def said(case: Case) -> np.ndarray:
    """Tokens to be scored, [b, 9]."""
    return labels((case.batch, 9), VOCABULARY)


def build() -> Any:
    import transformers

    inside = OPTIONS["encoder_options"]
    encoder = transformers.ViTConfig(
        hidden_size=inside["width"],
        num_hidden_layers=inside["depth"],
        num_attention_heads=inside["num_heads"],
        intermediate_size=4 * inside["width"],
        patch_size=inside["patch_size"],
        image_size=list(SIDES),
    )
    decoder = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        n_embd=OPTIONS["width"],
        n_layer=OPTIONS["depth"],
        n_head=OPTIONS["num_heads"],
        add_cross_attention=True,
    )
    return transformers.VisionEncoderDecoderModel(
        encoder=transformers.ViTModel(encoder, add_pooling_layer=False),
        decoder=transformers.GPT2LMHeadModel(decoder),
    ).eval()


def prepared(case: Case) -> Any:
    """The reference with the case's weights."""
    import torch

    network = build()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    values = {name: torch.from_numpy(value) for name, value in state(shapes, case).items()}
    network.load_state_dict(values, strict=True)
    return network


def generated(network: Any, case: Case, setting: Setting, dtype: Any) -> tuple[Any, Any]:
    """(tokens [b, length] behind the begin, scores [b])."""
    import torch

    x = torch.from_numpy(images(case)).to(dtype)
    found = network.to(dtype).generate(
        x,
        num_beams=setting.beams,
        max_new_tokens=setting.length,
        length_penalty=setting.length_penalty,
        early_stopping=setting.early_stopping,
        no_repeat_ngram_size=setting.no_repeat_ngram_size,
        do_sample=False,
        decoder_start_token_id=case.begin,
        bos_token_id=case.begin,
        eos_token_id=case.end,
        pad_token_id=case.pad,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    tokens = found.sequences[:, 1:].numpy()
    tokens = np.pad(
        tokens, ((0, 0), (0, setting.length - tokens.shape[1])), constant_values=case.pad
    )
    if setting.beams > 1:
        return tokens, found.sequences_scores.numpy()
    log = np.stack([torch.log_softmax(one, -1).numpy() for one in found.logits], 1)
    ends = np.cumsum(tokens == case.end, 1) - (tokens == case.end) > 0
    chosen = np.take_along_axis(log, tokens[:, : log.shape[1], None], 2)[..., 0]
    return tokens, np.where(ends[:, : log.shape[1]], 0, chosen).sum(1)


def main() -> None:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    kept: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        network = prepared(case)
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        words = torch.from_numpy(said(case))
        x = torch.from_numpy(images(case)).double()
        logits = network.double()(x, decoder_input_ids=words).logits
        kept[f"{name}/logits"] = logits.detach().numpy().astype(np.float32)
        kept[f"{name}/names"] = np.array(sorted(shapes))
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), words[:, 1:].flatten()
        )
        loss.backward()
        learnt = {key: value.grad.numpy() for key, value in network.named_parameters()}
        kept[f"{name}/loss"] = np.float32(loss.item())
        kept[f"{name}/learnt"] = np.array(list(learnt))
        norms = [np.linalg.norm(value) for value in learnt.values()]
        kept[f"{name}/norms"] = np.array(norms, np.float32)
        parts = [sample(value, GRADIENTS) for value in learnt.values()]
        kept[f"{name}/gradients"] = np.concatenate(parts).astype(np.float32)
        for label, setting in SETTINGS.items():
            exact, scores = generated(network, case, setting, torch.float64)
            single, _ = generated(network, case, setting, torch.float32)
            if not np.array_equal(exact, single):
                raise RuntimeError(f"{name}, {label}: float32 and float64 differ.")
            kept[f"{name}/{label}/tokens"] = exact.astype(np.uint8)
            kept[f"{name}/{label}/scores"] = scores.astype(np.float32)
            ends = [int(np.argmax(row == case.end)) if case.end in row else -1 for row in exact]
            print(f"{name}, {label}: ends {ends}, scores {scores.round(3)}")
            print(exact)
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
