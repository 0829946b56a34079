"""Networks that say what was hidden from them, beside their PyTorch references.

    python tests/parity/reconstruction.py

writes tests/parity/golden/reconstruction.npz. Of `mae`, `mae_plain` and `beit`, transformers'
`ViTMAEForPreTraining`, of which pixels are standardised or not, and `BeitForMaskedImageModeling`:
what they say, the loss, and all gradients, one after the other in the order of their names. Of
`denoising` and `context`: some outputs in evaluation and training, and some of the gradient of the
squared ones. See README.md for the environment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform, image, sample, weights

GOLDEN = Path(__file__).parent / "golden" / "reconstruction.npz"
MAE = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 4,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 1,
    "decoder_intermediate_size": 16,
    "image_size": 16,
    "patch_size": 4,
    "layer_norm_eps": 1e-6,
}
BEIT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,  # of others transformers 5.23 confuses rows and columns of the biases
    "patch_size": 4,
    "layer_norm_eps": 1e-6,
    "drop_path_rate": 0.0,
    "vocab_size": 7,
    "use_mask_token": True,
    "use_shared_relative_position_bias": True,
}
MASKED = {"mae": (2, 3, 16, 16), "mae_plain": (2, 3, 16, 16), "beit": (2, 3, 16, 16)}
CORRUPTED = {"denoising": (2, 3, 64, 60), "context": (2, 3, 64, 64)}
OUTPUTS, GRADIENTS = 64, 8
POSITIONS = ("position_embeddings", "decoder_pos_embed")  # fixed


def noise() -> np.ndarray:
    """By which MAE keeps patches, float32 [b, n]."""
    return _uniform("noise", (2, 16))


def hidden() -> np.ndarray:
    """What BEiT does not see, bool [b, n]."""
    return _uniform("hidden", (2, 16)) > 0.2


def tokens() -> np.ndarray:
    """Of BEiT's patches, int64 [b, n]."""
    return ((_uniform("tokens", (2, 16)) + 1) / 2 * BEIT["vocab_size"]).astype(np.int64)


def _filled(network: Any) -> dict[str, list[int]]:
    """Deterministic weights, in place; the shapes of what may be given."""
    import torch

    state = network.state_dict()
    kept = {key: value for key, value in state.items() if value.is_floating_point()}
    with torch.no_grad():
        for key, value in kept.items():
            if not key.endswith(POSITIONS):
                value.copy_(torch.from_numpy(weights(key, tuple(value.shape))))
    return {key: list(value.shape) for key, value in kept.items()}


def masked(name: str) -> dict[str, np.ndarray]:
    import torch
    from parity.references import transformers

    package, found = transformers(), {}
    x = torch.from_numpy(image(MASKED[name])).double()
    if name == "beit":
        network = package.BeitForMaskedImageModeling(package.BeitConfig(**BEIT))
        which = torch.from_numpy(hidden())
        labels = torch.from_numpy(tokens())[which]
        inputs = {"bool_masked_pos": which, "labels": labels}
    else:
        config = package.ViTMAEConfig(**MAE, norm_pix_loss=name == "mae")
        network = package.ViTMAEForPreTraining(config)
        # transformers 5.23 makes positions, and sets them to 0 after that; files have them.
        network.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
        network.vit.embeddings.initialize_weights()
        network.decoder.initialize_weights(16)
        inputs = {"noise": torch.from_numpy(noise())}
    shapes = _filled(network)
    network.double().train()
    output = network(x, **inputs)
    output.loss.backward()
    found["shapes"] = np.array(json.dumps(shapes))
    found["loss"] = output.loss.detach().numpy()
    found["output"] = output.logits.detach().numpy().astype(np.float32)
    if name != "beit":
        found["hidden"] = output.mask.numpy().astype(bool)
    gradients = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    assert sorted(gradients) == [key for key in sorted(shapes) if not key.endswith(POSITIONS)]
    parts = [gradients[key].flatten() for key in sorted(gradients)]
    found["gradient"] = torch.cat(parts).numpy().astype(np.float32)
    return found


def corrupted(name: str) -> dict[str, np.ndarray]:
    import torch
    from parity.networks.corrupted import ContextEncoder, DenoisingAutoencoder
    from parity.references import first_blocks, torchvision

    encoder, found = torchvision().models.resnet18(), {}
    first_blocks(encoder)
    network = (
        ContextEncoder(encoder, 4, places=4)
        if name == "context"
        else DenoisingAutoencoder(encoder, 4)
    )
    found["shapes"] = np.array(json.dumps(_filled(network)))
    network.double()
    x = torch.from_numpy(image(CORRUPTED[name])).double()
    for mode in ("eval", "train"):
        network.train(mode == "train")
        output = network(x)
        found[mode] = sample(output.detach().numpy(), OUTPUTS).astype(np.float32)
    output.square().sum().backward()
    gradients = {key: value.grad.numpy() for key, value in network.named_parameters()}
    found["norms"] = np.float32([np.linalg.norm(gradients[key]) for key in sorted(gradients)])
    parts = [sample(gradients[key], GRADIENTS) for key in sorted(gradients)]
    found["gradient"] = np.concatenate(parts).astype(np.float32)
    return found


def sizes() -> dict[str, int]:
    """Parameters of the published networks, fixed positions among them."""
    import torch
    from parity.references import transformers

    package, found = transformers(), {}
    mae = {
        "base_patch16": {},
        "large_patch16": {"hidden_size": 1024, "num_hidden_layers": 24}
        | {"num_attention_heads": 16, "intermediate_size": 4096},
        "huge_patch14": {"hidden_size": 1280, "num_hidden_layers": 32, "patch_size": 14}
        | {"num_attention_heads": 16, "intermediate_size": 5120},
    }
    shared = {"use_mask_token": True, "use_shared_relative_position_bias": True}
    beit = {name.partition("_")[0]: options for name, options in mae.items() if name[0] != "h"}
    with torch.device("meta"):
        for name, options in mae.items():
            network = package.ViTMAEForPreTraining(package.ViTMAEConfig(**options))
            found[f"mae_vit_{name}_224"] = network
        for name, options in beit.items():
            network = package.BeitForMaskedImageModeling(package.BeitConfig(**options, **shared))
            found[f"beit_{name}_patch16_224_mim"] = network
    return {name: sum(p.numel() for p in one.parameters()) for name, one in found.items()}


def main() -> None:
    import torch

    torch.set_num_threads(1)
    cases = {name: masked(name) for name in MASKED} | {name: corrupted(name) for name in CORRUPTED}
    found = {f"{name}/{key}": v for name, case in cases.items() for key, v in case.items()}
    found["sizes"] = np.array(json.dumps(sizes()))
    np.savez_compressed(GOLDEN, **found)
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes; {found['sizes']}")


if __name__ == "__main__":
    main()
