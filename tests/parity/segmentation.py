"""Label maps on which losses and metrics are compared with other libraries'."""

import numpy as np

CLASSES, VOID = 5, 255


def maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(scores f32 [2, h, w, CLASSES], truth i64 [2, h, w]) by name: random ones and hard ones."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (2, 6, 7, CLASSES)).astype(np.float32)
    random = rng.integers(0, CLASSES, scores.shape[:-1])
    void = np.where(rng.random(random.shape) < 0.3, VOID, random)
    absent = np.where(np.isin(random, (1, 4)), 0, random)
    unpredicted = scores.copy()
    unpredicted[..., [1, 4]] = -50
    one_scores = rng.normal(0, 2, (2, 1, 1, CLASSES)).astype(np.float32)
    return {
        "random": (scores, random),
        "void": (scores, void),
        "absent": (scores, absent),
        "absent_and_unpredicted": (unpredicted, absent),
        "all_void": (scores, np.full_like(random, VOID)),
        "one_pixel": (one_scores, np.array([[[2]], [[VOID]]])),
        "certain": (
            np.where(np.arange(CLASSES) == random[..., None], 40.0, -40.0).astype(np.float32),
            random,
        ),
    }
