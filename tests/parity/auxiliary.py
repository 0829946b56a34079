"""Writes golden/*_auxiliary.npz, what auxiliary heads put out in training.

    python tests/parity/auxiliary.py [CASE ...]

See README.md for the environment.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.case import Case
from parity.cases import GOLDEN, LOGITS
from parity.deterministic import image, sample

_OPTIONS = {"aux_logits": True}
CASES = {
    "googlenet": Case((4, 3, 96, 96), options=_OPTIONS, slow="training"),
    "googlenet_lrn": Case((2, 3, 96, 96), options=_OPTIONS),
    "inception_v3": Case((2, 3, 299, 427), options=_OPTIONS),
}


def golden(name: str) -> None:
    import torch
    from parity.generate import prepared

    found = {}
    for dtype in (torch.float64, torch.float32):
        network = prepared(name, CASES[name]).to(dtype).train()
        with torch.no_grad():
            logits, *heads = network(torch.from_numpy(image(CASES[name].image)).to(dtype))
        # The references give the last head first.
        outputs = {"logits": logits, **{f"aux{i}": y for i, y in enumerate(heads[::-1], start=1)}}
        found[dtype] = {key: sample(y.numpy(), LOGITS) for key, y in outputs.items()}
    exact, single = found.values()
    np.savez_compressed(
        GOLDEN / f"{name}_auxiliary.npz", **{k: v.astype(np.float32) for k, v in exact.items()}
    )
    rounding = {k: np.abs(v - single[k]).max() / np.abs(v).max() for k, v in exact.items()}
    print(name, {k: f"{v:.1e}" for k, v in rounding.items()})


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        golden(wanted)
