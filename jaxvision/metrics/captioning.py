"""Metrics of captions, on texts: BLEU, ROUGE-L, CIDEr, and how many captions differ.

The numbers are those of the evaluators of COCO (`pycocoevalcap` 1.2) on the same words. Theirs come
of a tokenizer in Java; here words are what `words` finds.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

Ngram = tuple[str, ...]

_ORDER = 4  # the longest n-grams that are counted
_SIGMA = 6.0  # of CIDEr-D's penalty on a difference in length


class _Kept(dict[int, int | str]):
    """What becomes of a character, as `str.translate` asks for it: itself, or a space."""

    def __missing__(self, code: int) -> int | str:
        kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if kept else " "
        return self[code]


_KEPT = _Kept()


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, marks and digits of any script.

    Of English these are `re.findall("[a-z0-9]+", text.lower())`. Punctuation and emoji are none.
    """
    return text.lower().translate(_KEPT).split()


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, "4"]:
    """BLEU-1 to BLEU-4 of a corpus (Papineni et al. 2002, https://aclanthology.org/P02-1040).

    Counts are added over the corpus before they are divided. A candidate's length is compared with
    that of its reference which is closest to it, of two the shorter.

    Args:
      candidates: a caption of each image.
      references: the captions that it is compared with, one or more.

    Raises:
      ValueError: there is no image, or one without a reference.
    """
    _check(candidates, references)
    correct, guessed = np.zeros(_ORDER), np.zeros(_ORDER)
    length = closest = 0
    for candidate, others in zip(candidates, references):
        found, truths = words(candidate), [words(other) for other in others]
        length += len(found)
        closest += min((abs(len(truth) - len(found)), len(truth)) for truth in truths)[1]
        for n in range(1, _ORDER + 1):
            most: Counter[Ngram] = Counter()
            for truth in truths:
                most |= _ngrams(truth, n)
            correct[n - 1] += (_ngrams(found, n) & most).total()
            guessed[n - 1] += max(0, len(found) - n + 1)
    # The two smallest of numbers keep what is empty from dividing by zero, as in the evaluator.
    precision = np.cumprod((correct + 1e-15) / (guessed + 1e-9))
    score = precision ** (1 / np.arange(1, _ORDER + 1))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return score * math.exp(1 - 1 / ratio) if ratio < 1 else score


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L, the mean over images (Lin 2004, https://aclanthology.org/W04-1013).

    The F-measure of the longest common subsequence with beta = 1.2; precision and recall are each
    those of the reference where they are largest.

    Args:
      candidates, references: see `bleu`.

    Raises:
      ValueError: see `bleu`.
    """
    _check(candidates, references)
    return float(np.mean([_rouge_l(*each) for each in zip(candidates, references)]))


def _rouge_l(candidate: str, references: Sequence[str]) -> float:
    found, truths = words(candidate), [words(other) for other in references]
    common = [_common(truth, found) for truth in truths]
    precision = max(common) / max(len(found), 1)
    recall = max(both / max(len(truth), 1) for both, truth in zip(common, truths))
    if not precision or not recall:
        return 0.0
    weight = 1.2**2
    return (1 + weight) * precision * recall / (recall + weight * precision)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    above = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, second in enumerate(other):
            row.append(above[place] + 1 if word == second else max(above[place + 1], row[-1]))
        above = row
    return above[-1]


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """What COCO's evaluators call CIDEr: the mean of `cider_d`, by the references' frequencies.

    Args:
      candidates, references: see `bleu`.

    Raises:
      ValueError: see `bleu`.
    """
    return float(np.mean(cider_d(candidates, references)))


def cider_d(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    frequencies: Mapping[Ngram, int] | None = None,
    documents: int = 0,
) -> Float[np.ndarray, " n"]:
    """CIDEr-D of each image (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726, section 5).

    The similarity of n-grams weighted by tf-idf, where a candidate's count is clipped to the
    reference's, with a penalty on a difference in length; 10 times the mean over n = 1 to 4 and
    over references. Words are not stemmed.

    Args:
      candidates, references: see `bleu`.
      frequencies: in the references of how many images an n-gram occurs; None: in these.
      documents: of how many images the frequencies are.

    Raises:
      ValueError: see `bleu`.
    """
    _check(candidates, references)
    truths = [[_counts(words(other)) for other in others] for others in references]
    if frequencies is None:
        frequencies, documents = document_frequencies(references), len(references)
    scale = np.log(float(documents))

    def vector(counts: Sequence[Counter[Ngram]]) -> list[dict[Ngram, float]]:
        return [
            {
                ngram: count * (scale - np.log(max(1.0, frequencies.get(ngram, 0))))
                for ngram, count in of_length.items()
            }
            for of_length in counts
        ]

    scores = []
    for candidate, others in zip(candidates, truths):
        counts = _counts(words(candidate))
        found, length = vector(counts), counts[1].total()
        similarity = np.zeros(_ORDER)
        for other in others:
            delta = length - other[1].total()
            penalty = np.e ** (-(delta**2) / (2 * _SIGMA**2))
            similarity += [_similarity(*pair) * penalty for pair in zip(found, vector(other))]
        scores.append(10 * (np.mean(similarity) / len(others)))
    return np.array(scores)


def _similarity(found: Mapping[Ngram, float], truth: Mapping[Ngram, float]) -> float:
    """The cosine of two vectors, of which the first is clipped to the second."""
    product = 0.0
    for ngram, weight in found.items():
        other = truth.get(ngram, 0.0)
        product += min(weight, other) * other
    norms = [math.sqrt(sum(weight**2 for weight in vector.values())) for vector in (found, truth)]
    return product / (norms[0] * norms[1]) if all(norms) else product


def document_frequencies(references: Sequence[Sequence[str]]) -> Counter[Ngram]:
    """In the references of how many images each n-gram of one to four words occurs."""
    return Counter(
        ngram
        for others in references
        for ngram in {one for other in others for of in _counts(words(other)) for one in of}
    )


def distinct(captions: Sequence[str]) -> float:
    """The share of captions that differ in their words from all before them.

    Raises:
      ValueError: there is none.
    """
    if not captions:
        raise ValueError("There is no caption.")
    return len({tuple(words(caption)) for caption in captions}) / len(captions)


def _ngrams(tokens: Sequence[str], n: int) -> Counter[Ngram]:
    return Counter(zip(*(tokens[start:] for start in range(n))))


def _counts(tokens: Sequence[str]) -> list[Counter[Ngram]]:
    """The n-grams of each length, from 1 on."""
    return [_ngrams(tokens, n) for n in range(1, _ORDER + 1)]


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises:
    ValueError: see `bleu`.
    """
    if not candidates or len(candidates) != len(references) or not all(map(len, references)):
        raise ValueError(
            f"{len(candidates)} captions and {len(references)} sets of references; expected as "
            "many, one or more, and no set that is empty."
        )
