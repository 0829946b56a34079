"""Captions on which metrics are compared with COCO's evaluators.

    python tests/parity/captions.py

writes captions.json. It wants `pip install pycocoevalcap==1.2 numpy`, and no Java.
"""

import json
import re
from pathlib import Path

PATH = Path(__file__).parent / "captions.json"

CANDIDATES = (
    "A brown dog runs across the grass.",
    "Two children play with a ball on the beach",
    "a man a man a man a man",
    "A plane, floating on a lake!",
    "dog",
    "The cat sits on the mat and looks at the very large window of the old house by the river",
)
REFERENCES = (
    ("A dog is running across the green grass.", "The brown dog runs on grass", "A running dog"),
    ("Children playing with a ball on a sandy beach.", "Two kids play ball at the beach"),
    ("A man in a red shirt stands beside a man.", "Two men."),
    ("A plane floating on top of a lake surrounded by mountains.", "A seaplane on a lake."),
    ("A dog", "A black dog jumps over a log"),
    ("A cat sits on a mat.", "The cat looks at the window"),
)


def main() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    def plain(text: str) -> str:
        return " ".join(re.findall("[a-z0-9]+", text.lower()))

    found = {i: [plain(text)] for i, text in enumerate(CANDIDATES)}
    truth = {i: [plain(text) for text in several] for i, several in enumerate(REFERENCES)}
    bleu, _ = Bleu(4).compute_score(truth, found, verbose=0)
    rouge, _ = Rouge().compute_score(truth, found)
    cider, each = Cider().compute_score(truth, found)
    numbers = {"bleu": bleu, "rouge_l": rouge, "cider": cider, "cider_of_each": each.tolist()}
    PATH.write_text(json.dumps(numbers, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
