"""Runs the PyTorch references and writes what the tests compare with.

    python tests/parity/generate.py [golden] [torch_files]

`golden`: tests/parity/golden/<variant>.npz: logits in evaluation mode; loss, gradients and running
statistics of one training step. `torch_files`: tests/interop/data, one dict of many kinds of
tensors in both formats of torch.save. See README.md for the environment.
"""

import collections
import itertools
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from parity import references
from parity.cases import CASES, GOLDEN, GRADIENTS, LOGITS, Case
from parity.deterministic import image, labels, sample, weights

FILES = Path(__file__).parents[1] / "interop" / "data"


def prepared(name: str, case: Case) -> torch.nn.Module:
    """The reference with deterministic weights."""
    torch.set_num_threads(1)
    network = references.build(name, case)
    # `named_parameters` knows a layer that is registered twice by its first name only; so do we.
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    with torch.no_grad():
        for key, value in state.items():
            value.copy_(torch.from_numpy(np.asarray(weights(key, tuple(value.shape)))))
    return network


def outcome(name: str, case: Case, draw: int, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Logits, and what one training step makes, computed in `dtype`."""
    network = prepared(name, case).to(dtype)
    x = torch.from_numpy(image(case.image, draw)).to(dtype)
    with torch.no_grad():
        logits = network.eval()(x).movedim(1, -1)
    truth = torch.from_numpy(labels(tuple(logits.shape[:-1]), case.classes))
    loss = torch.nn.functional.cross_entropy(network.train()(x), truth)
    loss.backward()
    parameters = dict(sorted(network.named_parameters()))
    statistics = {k: b for k, b in sorted(network.named_buffers()) if "running" in k}
    gradients = [p.grad.numpy() for p in parameters.values()]
    return {
        "draw": np.array(draw),
        "shapes": np.array(json.dumps({k: p.shape for k, p in parameters.items()})),
        "statistics_shapes": np.array(json.dumps({k: b.shape for k, b in statistics.items()})),
        "logits": sample(logits.numpy(), LOGITS),
        "logits_shape": np.array(logits.shape),
        "loss": loss.detach().numpy(),
        "norms": np.array([np.linalg.norm(g) for g in gradients]),
        "gradients": np.concatenate([sample(g, GRADIENTS) for g in gradients]),
        "statistics": np.concatenate(
            [[], *(sample(s.numpy(), GRADIENTS) for s in statistics.values())]
        ),
    }


def golden(name: str, case: Case) -> None:
    """Writes one variant's file.

    Values are of float64. An image is drawn again if float32 gives other gradients: then a ReLU's
    input is so near zero that rounding decides its slope, on which no two programs need agree.
    """
    for draw in itertools.count():
        exact, single = (outcome(name, case, draw, t) for t in (torch.float64, torch.float32))
        if np.allclose(exact["norms"], single["norms"], 1e-5):
            break
    GOLDEN.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN / f"{name}.npz",
        **{k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in exact.items()},
    )
    largest = np.abs(exact["logits"]).max()
    print(f"{name}: draw {draw}, loss {exact['loss']:.6f}, logits up to {largest:.3f}")


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
    print(f"torch files in {FILES}")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["golden", "torch_files"]
    if "golden" in wanted:
        for item in CASES.items():
            golden(*item)
    if "torch_files" in wanted:
        torch_files()
