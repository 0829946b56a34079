"""What captioning shows: sentences below photographs, and where each word looked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxvision.data.annotations.caption import text_of
from jaxvision.inspect import draw
from jaxvision.metrics.captioning import rouge_l, words
from jaxvision.report import Section, Table, charts
from jaxvision.tasks import pictures
from jaxvision.tasks.evaluated import Evaluated, Mistake
from jaxvision.tasks.shown import Numbers, Shown, Words, heat

_SIDE = 640  # the longest of a photograph over its caption


def picture(task: Any, batch: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
    """A grid of images over the captions that are found.

    Args:
      task: a `Captioning`.
      batch: host arrays.
      outputs: of `task.predict`.

    Returns:
      uint8 [h, w, 3].
    """
    texts = task.texts(np.asarray(outputs["tokens"]))
    return pictures.captioned_grid(np.asarray(batch["image"]), texts, [False] * len(texts))


def _likelihood(prediction: Any) -> float:
    """The logarithm of the probability of the caption."""
    return float(prediction.outputs["log_probabilities"].sum(dtype=np.float64))


def summary(task: Any, prediction: Any, top: int = 5) -> dict[str, Any]:
    """JSON-able: `caption` and its `log_probability`, the sum over its tokens."""
    (caption,) = task.texts(prediction.outputs["tokens"][None])
    return {"caption": caption, "log_probability": round(_likelihood(prediction), 6)}


def cell(task: Any, prediction: Any, top: int = 5) -> str:
    """One line for the table of `predict`."""
    found = summary(task, prediction)
    return f"{found['caption']} ({found['log_probability']:.2f})"


# The ends of the names of what `write` writes for each image.
ENDINGS = (".png", "_attention.png")


def write(task: Any, prediction: Any, folder: Path, stem: str) -> None:
    """The photograph over its caption, as `stem.png`; `stem_attention.png` of attention networks.

    There each word is below what the network looked at when it said it, as in figure 3 of Xu et al.
    2015, on the image as the network saw it.
    """
    photograph = Image.fromarray(pictures.as_colour(prediction.image))
    photograph.thumbnail((_SIDE, _SIDE))
    caption = summary(task, prediction)["caption"]
    over = pictures.captioned_grid(np.asarray(photograph)[None], [caption], [False])
    Image.fromarray(over).save(folder / f"{stem}.png")
    if "attention" in prediction.outputs:
        shown = attention_picture(task, prediction.network_image, prediction.outputs)
        Image.fromarray(shown).save(folder / f"{stem}_attention.png")


def attention_picture(
    task: Any, image: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """An image, and for each of its caption's words where the network looked.

    Args:
      task: a `Captioning`.
      image: uint8 [h, w, c], as the network saw it.
      outputs: this image's rows of `task.predict`, `attention` among them.

    Returns:
      uint8 [h, w, 3].
    """
    words = _words(task, outputs)
    colour = pictures.as_colour(image)
    heats = [draw.heat(colour, draw.stretched(seen)) for seen in outputs["attention"][: len(words)]]
    tiles = np.stack([colour, *heats])
    return pictures.captioned_grid(tiles, ["", *words], [False] * len(tiles), columns=5)


def _words(task: Any, outputs: Mapping[str, np.ndarray]) -> list[str]:
    """The text of each token up to the end."""
    ends = np.flatnonzero(outputs["tokens"] == task.tokenizer.end)
    said = outputs["tokens"][: ends[0] if len(ends) else None]
    return [task.tokenizer.decode([token]) for token in said]


def shown(task: Any, prediction: Any) -> list[Shown]:
    """The caption word by word, and where each word looked; see `jaxvision.tasks.shown`."""
    outputs, words = prediction.outputs, _words(task, prediction.outputs)
    seen = outputs.get("attention", ())[: len(words)]
    maps = [heat(prediction, draw.stretched(one)) for one in seen]
    likelihood = ("log probability", f"{_likelihood(prediction):.2f}")
    return [Words(words, maps), Numbers([likelihood])]


def figures(task: Any, rows: Mapping[str, np.ndarray], folder: Path) -> None:
    """The captions found and the true ones of each image, as `captions.json`.

    Args:
      task: a `Captioning`.
      rows: of an evaluation.
      folder: gets the file.
    """
    found, true = task.texts(rows["found"]), task.references(rows)
    listed = [{"found": one, "true": others} for one, others in zip(found, true)]
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    (folder / "captions.json").write_text(text, encoding="utf-8")


_LISTED = 200  # captions


def annotated(task: Any, row: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    """(an augmented training image, the caption of it that is learned)."""
    return row["image"], text_of(row["caption"][0])


def sections(task: Any, found: Evaluated) -> list[Section]:
    """Captions beside true ones, those that are least alike first, and how long they are."""
    texts, true = task.texts(found.rows["found"]), task.references(found.rows)
    alike = _alike(texts, true)
    lines = [
        [found.name(row), texts[row], " / ".join(true[row]), alike[row]]
        for row in np.argsort(alike, kind="stable")[:_LISTED].tolist()
    ]
    columns = ("image", "found", "true", "ROUGE-L")
    lengths = {
        "found": [len(words(text)) for text in texts],
        "true": [len(words(text)) for each in true for text in each],
    }
    series = {
        name: [(k, n / len(own)) for k, n in enumerate(np.bincount(own).tolist())]
        for name, own in lengths.items()
        if own
    }
    chart = charts.curves("Words of a caption", series, x="words", y="share of the captions")
    text = f"Captions of {found.split}, the least alike first"
    return [Section("Captions", [chart, Table(columns, lines, text)])]


def mistakes(task: Any, found: Evaluated, most: int) -> list[Mistake]:
    """The images whose captions are least like the true ones."""
    texts, true = task.texts(found.rows["found"]), task.references(found.rows)
    alike = _alike(texts, true)
    return [
        Mistake(row, f"{found.name(row)}, true: {true[row][0]}", wrong=bool(alike[row] < 1))
        for row in np.argsort(alike, kind="stable")[:most].tolist()
        if true[row]
    ]


def _alike(texts: Any, true: Any) -> np.ndarray:
    """ROUGE-L of each caption with its true ones; 1 where there is none."""
    return np.array([rouge_l([one], [known]) if known else 1.0 for one, known in zip(texts, true)])
