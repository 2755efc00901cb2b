# SPDX-License-Identifier: Apache-2.0
"""Where to cut a range so that the numbers in it keep their distribution: entropy calibration."""

import numpy as np
from jaxtyping import Float

BINS = 2048
LEVELS = 128


def threshold(counts: Float[np.ndarray, "bins"], width: float, *, levels: int = LEVELS) -> float:
    """T such that |x| cut at T and put on `levels` levels says most about |x|.

    `counts`, not all 0, are a histogram of |x| in bins of `width` from 0 on. For every number of
    bins i from `levels` on, P is the first i bins, all that lies beyond added to the last of them;
    Q is the first i bins without that, put on `levels` levels and spread evenly over the bins of a
    level that are not empty. The i of the least KL(P || Q) wins; T = (i + 1/2) `width`, at most the
    end of the histogram.

    Reference: Migacz, *8-bit Inference with TensorRT* (GPU Technology Conference 2017), slides 30
    to 39; Wu et al. (arXiv 2004.09602), section 5. Differs from the talk: an i whose Q is 0 where P
    is not (KL infinite) is passed over, and where all are, nothing is cut; levels are i / `levels`
    bins wide to the bin, where the talk does not say what becomes of a remainder.
    """
    total = counts.sum()
    best, least = len(counts), np.inf
    for i in range(levels, len(counts) + 1):
        p = counts[:i].copy()
        p[-1] += counts[i:].sum()
        divergence = _divergence(p / total, _on_levels(counts[:i], levels))
        if divergence < least:
            best, least = i, divergence
    return float(min(best + 0.5, len(counts)) * width)


def _on_levels(counts: np.ndarray, levels: int) -> np.ndarray:
    """`counts` a level, in equal parts to those of its bins that hold any, as shares of 1."""
    level = np.arange(len(counts)) * levels // len(counts)
    filled = counts > 0
    sums = np.bincount(level, counts, levels)
    parts = np.bincount(level, filled, levels)
    q = filled * (sums / np.maximum(parts, 1))[level]
    return q / max(q.sum(), np.finfo(np.float64).tiny)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats; infinite where q is 0 and p is not."""
    there = p > 0
    if (q[there] == 0).any():
        return np.inf
    return float((p[there] * np.log(p[there] / q[there])).sum())
