"""Networks on tokens of images beside transformers: Image GPT, and DALL-E's encoder.

    python tests/parity/image_tokens.py

writes tests/parity/golden/image_tokens.npz: of Image GPT logits, what `generate` continues
greedily, hidden states, loss and some of every parameter's gradient and its norm; of the encoder
logits and tokens; and of the published networks how many parameters they have. See README.md for
the environment.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, labels, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "image_tokens.npz"
OUTPUTS, GRADIENTS = 60, 4  # values kept of an output, and of each parameter's gradient
# Fields of `jaxvision.models.create`.
IGPT = {"colours": 11, "size": (3, 4), "width": 16, "depth": 3, "num_heads": 2}
CODEBOOK = {"codes": 40, "hidden": 8, "groups": 4, "blocks": 1}
POSITIONS = 12
SEEN = 7  # pixels that are continued, the begin among them
PUBLISHED = {
    "imagegpt_small": (512, 24),
    "imagegpt_medium": (1024, 36),
    "imagegpt_large": (1536, 48),
}


def pixels() -> np.ndarray:
    """The begin and colours, [b, t + 1]; the last one is only predicted."""
    found = labels((3, POSITIONS), IGPT["colours"])
    return np.concatenate([np.full((3, 1), IGPT["colours"]), found], 1)


def image() -> np.ndarray:
    """From 0 to 1, [b, c, h, w]."""
    return (_uniform("image of tokens", (2, 3, 16, 24)) + 1) / 2


def igpt(width: int, depth: int, **options: Any) -> Any:
    from parity.references import transformers

    package = transformers()
    config = package.ImageGPTConfig(
        vocab_size=options.get("colours", 512) + 1,
        n_positions=math.prod(options.get("size", (32, 32))),
        n_embd=width,
        n_layer=depth,
        n_head=options.get("num_heads", 8),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return package.ImageGPTForCausalImageModeling(config)


def codebook(**options: Any) -> Any:
    from parity.references import transformers

    package = transformers()
    config = package.FlavaImageCodebookConfig(
        num_groups=options["groups"],
        num_blocks_per_group=options["blocks"],
        hidden_size=options["hidden"],
        vocab_size=options["codes"],
    )
    return package.FlavaImageCodebook(config).eval()


def filled(network: Any) -> Any:
    """In double precision, with the weights that names and shapes decide."""
    import torch

    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(torch.from_numpy(np.asarray(weights(name, tuple(value.shape)))))
    return network.double()


def shapes(network: Any) -> np.ndarray:
    state = {k: list(v.shape) for k, v in network.state_dict().items() if v.is_floating_point()}
    return np.array(json.dumps(state))


def of_igpt() -> dict[str, np.ndarray]:
    import torch

    network, found = filled(igpt(**IGPT)), {}
    words = torch.from_numpy(pixels())
    output = network(words[:, :-1], output_hidden_states=True)
    found["logits"] = sample(output.logits.detach().numpy(), OUTPUTS)
    for index, state in enumerate(output.hidden_states[:-1]):
        normal = network.transformer.h[index].ln_1(state).mean(1)
        found[f"features/{index}"] = normal.detach().numpy()
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), words[:, 1:].flatten())
    loss.backward()
    gradients = {name: value.grad.numpy() for name, value in network.named_parameters()}
    found["loss"] = loss.detach().numpy()
    found["learnt"] = np.array(list(gradients))
    found["norms"] = np.array([np.linalg.norm(value) for value in gradients.values()])
    found["gradients"] = np.concatenate([sample(v, GRADIENTS) for v in gradients.values()])
    # `generate` wants a padding, which there is none of.
    said = words[:, :SEEN]
    with torch.no_grad():
        while said.shape[1] <= POSITIONS:
            following = network(said).logits[:, -1].argmax(-1, keepdim=True)
            said = torch.cat([said, following], 1)
    generated = network.generate(
        words[:, :SEEN], do_sample=False, max_length=POSITIONS + 1, pad_token_id=0
    )
    assert torch.equal(generated, said)
    found["continued"] = said.numpy().astype(np.uint8)
    return found | {"shapes": shapes(network)}


def of_codebook() -> dict[str, np.ndarray]:
    import torch

    network = filled(codebook(**CODEBOOK))
    x = torch.from_numpy(image()).double() * 0.8 + 0.1
    with torch.no_grad():
        logits, tokens = network(x), network.get_codebook_indices(x)
    best = logits.topk(2, 1).values
    print(f"codebook: nearest to a tie {(best[:, 0] - best[:, 1]).min():.2e}")
    return {
        "logits": sample(logits.movedim(1, -1).numpy(), OUTPUTS),
        "tokens": tokens.numpy().astype(np.uint8),
        "shapes": shapes(network),
    }


def counts() -> dict[str, int]:
    """The parameters of the published networks."""
    import torch

    full = {"codes": 8192, "hidden": 256, "groups": 4, "blocks": 2}
    with torch.device("meta"):
        networks = {name: igpt(*sizes) for name, sizes in PUBLISHED.items()}
        networks["flava_image_codebook"] = codebook(**full)
    return {name: sum(p.numel() for p in one.parameters()) for name, one in networks.items()}


def main() -> None:
    kept = {"published": np.array(json.dumps(counts()))}
    for part, found in (("igpt", of_igpt()), ("codebook", of_codebook())):
        for key, value in found.items():
            kept[f"{part}/{key}"] = np.float32(value) if value.dtype == np.float64 else value
    np.savez_compressed(GOLDEN, **kept)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes; {kept['published']}")


if __name__ == "__main__":
    main()
