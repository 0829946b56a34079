"""Intervals of shares that were counted."""

import math


def wilson_interval(hits: int, count: int, deviations: float = 1.959964) -> tuple[float, float]:
    """(low, high) between which a share lies of which `hits` of `count` were seen.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927,
    https://doi.org/10.1080/01621459.1927.10502953: the shares from which what was seen is no more
    than so many standard deviations away. Of no count they are 0 and 1.

    Args:
      hits: at most `count`.
      count: independent trials.
      deviations: of a normal distribution; the default covers 95 %.
    """
    if not count:
        return 0.0, 1.0
    share, square = hits / count, deviations**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count**2)
    half = deviations * math.sqrt(spread) / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)
