"""How common the n-grams of the captions to train on are, kept with the vocabulary of a run."""

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.errors import UserError
from jaxvision.ops import ngrams
from jaxvision.ops.ngrams import Frequencies


def count(images: Iterable[Sequence[Sequence[int]]]) -> Frequencies:
    """In the captions of how many images each n-gram occurs, of those that occur in two or more.

    CIDEr weights those of one image as those of none.

    Args:
      images: the tokens of each image's captions, without begin and end.
    """
    found, documents = [np.zeros(0, np.uint32)], 0
    for captions in images:
        documents += 1
        rows = [np.asarray(tokens, np.int32) for tokens in captions]
        own = [ngrams.hashes(row, n) for row in rows for n in range(1, ngrams.ORDER + 1)]
        found.append(np.unique(np.concatenate(own)) if own else found[0])
    hashes, counts = np.unique(np.concatenate(found), return_counts=True)
    several = counts > 1
    return Frequencies(documents, hashes[several], counts[several].astype(np.uint32))


def to_vocabulary(frequencies: Frequencies) -> dict[str, Any]:
    """As entries of `Facts.vocabulary`: the number of images, hashes and counts in base64."""
    arrays = (frequencies.hashes, frequencies.counts)
    raw = b"".join(np.asarray(array).astype("<u4").tobytes() for array in arrays)
    packed = base64.b64encode(zlib.compress(raw, 9)).decode()
    return {"documents": int(frequencies.documents), "ngrams": packed}


def of(vocabulary: Mapping[str, Any]) -> Frequencies:
    """The frequencies of `to_vocabulary`.

    Raises:
      UserError: the vocabulary has none, or they are damaged.
    """
    if "ngrams" not in vocabulary:
        raise UserError(
            "The vocabulary of the run does not say how common n-grams are; train with "
            "--config.data.caption_frequencies=True."
        )
    try:
        raw = zlib.decompress(base64.b64decode(vocabulary["ngrams"], validate=True))
        hashes, counts = np.frombuffer(raw, "<u4").reshape(2, -1)
        documents = int(vocabulary["documents"])
    except (zlib.error, binascii.Error, ValueError, TypeError, KeyError) as error:
        raise UserError(f"The frequencies of n-grams in the facts are damaged: {error}.") from error
    return Frequencies(documents, hashes.astype(np.uint32), counts.astype(np.uint32))
