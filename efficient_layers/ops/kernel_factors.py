# SPDX-License-Identifier: Apache-2.0
"""Low-rank factors of a convolution's kernel (kh, kw, in, out): SVD, Tucker-2, CP.

For weights that exist already: computed once, outside jit, in NumPy and float64, the same numbers
on every run. Factors of a larger rank never fit worse in `spatial_factors` and `tucker2_factors`.
"""

import math
from typing import NamedTuple

import numpy as np


class SpatialFactors(NamedTuple):
    """vertical (kh, 1, in, rank), horizontal (1, kw, rank, out)."""

    vertical: np.ndarray
    horizontal: np.ndarray


class TuckerFactors(NamedTuple):
    """reduce (1, 1, in, r), core (kh, kw, r, s), expand (1, 1, s, out)."""

    reduce: np.ndarray
    core: np.ndarray
    expand: np.ndarray


class CPFactors(NamedTuple):
    """(1, 1, in, r), depthwise (kh, 1, 1, r) and (1, kw, 1, r), (1, 1, r, out)."""

    reduce: np.ndarray
    vertical: np.ndarray
    horizontal: np.ndarray
    expand: np.ndarray


def check_rank(what: str, rank: int, limit: int, matrix: str) -> None:
    """Raises ValueError unless 1 <= rank <= limit."""
    if not 1 <= rank <= limit:
        raise ValueError(f"{what} expects a rank from 1 to {limit} ({matrix}). Got {rank}.")


def spatial_limit(shape: tuple[int, ...]) -> int:
    """The rank at which `spatial_factors` are exact: of a matrix of kh in x kw out."""
    kh, kw, inputs, outputs = shape
    return min(kh * inputs, kw * outputs)


def cp_limit(shape: tuple[int, ...]) -> int:
    """A rank at which `cp_factors` are exact: an SVD for each of the kh kw positions."""
    kh, kw, inputs, outputs = shape
    return kh * kw * min(inputs, outputs)


def spatial_factors(kernel: np.ndarray, rank: int) -> SpatialFactors:
    """K[y, x, i, o] = sum_r vertical[y, i, r] horizontal[x, r, o], nearest in the Frobenius norm.

    A truncated SVD of K as a matrix of (y i) rows and (x o) columns, its singular values shared
    evenly between the factors.

    Reference: Jaderberg et al., *Speeding up Convolutional Neural Networks with Low Rank
    Expansions* (arXiv 1405.3866), section 2.2, scheme 2; solved by SVD: Tai et al., *Convolutional
    neural networks with low-rank regularization* (arXiv 1511.06067), theorem 1.

    Raises:
      ValueError: a rank that the matrix cannot have.
    """
    kh, kw, inputs, outputs = kernel.shape
    check_rank("spatial_factors", rank, spatial_limit(kernel.shape), "kh in x kw out")
    matrix = np.asarray(kernel, np.float64).transpose(0, 2, 1, 3).reshape(kh * inputs, -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    vertical = (left[:, :rank] * root).reshape(kh, 1, inputs, rank)
    horizontal = (root[:, None] * right[:rank]).reshape(rank, kw, outputs)
    return SpatialFactors(vertical, horizontal.transpose(1, 0, 2)[None])


def tucker2_factors(kernel: np.ndarray, ranks: tuple[int, int]) -> TuckerFactors:
    """K[y, x, i, o] = sum_{r, s} reduce[i, r] core[y, x, r, s] expand[s, o], by a truncated HOSVD.

    The bases are the leading singular vectors along `in` and along `out`, orthonormal; the core is
    K in these bases. Within sqrt(2) of the best fit of its ranks.

    Reference: Kim et al., *Compression of Deep Convolutional Neural Networks for Fast and Low Power
    Mobile Applications* (arXiv 1511.06530), section 3.1.

    Raises:
      ValueError: a rank above the number of channels.
    """
    kernel = np.asarray(kernel, np.float64)
    check_rank("tucker2_factors", ranks[0], kernel.shape[2], "in")
    check_rank("tucker2_factors", ranks[1], kernel.shape[3], "out")
    bases = [_leading(kernel, axis, rank) for axis, rank in zip((2, 3), ranks, strict=True)]
    core = np.einsum("yxio,ir,os->yxrs", kernel, *bases, optimize=True)
    return TuckerFactors(bases[0][None, None], core, bases[1].T[None, None])


def _leading(kernel: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The first `rank` left singular vectors of `kernel` unfolded along `axis`, as columns."""
    unfolded = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    _, vectors = np.linalg.eigh(unfolded @ unfolded.T)  # ascending
    return vectors[:, ::-1][:, :rank]


def cp_factors(kernel: np.ndarray, rank: int, *, sweeps: int = 100) -> CPFactors:
    """K[y, x, i, o] = sum_r reduce[i, r] vertical[y, r] horizontal[x, r] expand[r, o].

    Alternating least squares from a deterministic start (`_cp_start`): each of the `sweeps` solves
    for one factor after the other, so the error never rises above the start's. At the rank
    `cp_limit` the start is exact already and returned as it is. Stops when a sweep gains less than
    1e-7 of the kernel's norm.

    Reference: Lebedev et al., *Speeding-up Convolutional Neural Networks Using Fine-tuned
    CP-Decomposition* (arXiv 1412.6553), section 3.2 (there by non-linear least squares).

    Raises:
      ValueError: a rank above kh kw min(in, out), where the factors are exact.
    """
    kernel = np.asarray(kernel, np.float64)
    check_rank("cp_factors", rank, cp_limit(kernel.shape), "kh kw min(in, out)")
    factors, residual = _cp_start(kernel, rank), np.inf
    norm = float(np.linalg.norm(kernel)) or 1.0
    for _ in range(sweeps):
        before, residual = residual, float(np.linalg.norm(kernel - _cp_sum(factors))) / norm
        if residual < 1e-9 or before - residual < 1e-7:
            break
        factors = _cp_sweep(kernel, factors)
    y, x, i, o = _balanced(factors)
    return CPFactors(i[None, None], y[:, None, None], x[None, :, None], o.T[None, None])


def _cp_start(kernel: np.ndarray, rank: int) -> list[np.ndarray]:
    """The `rank` largest terms of an SVD at each position (y, x); columns as (y, x, i, o) factors.

    Each term lies at one position alone; the first sweep spreads it.
    """
    kh, kw = kernel.shape[:2]
    left, values, right = np.linalg.svd(kernel, full_matrices=False)  # (kh, kw, ...)
    order = np.argsort(-values, axis=None, kind="stable")[:rank]
    y, x, term = np.unravel_index(order, values.shape)
    scaled = left[y, x, :, term] * values[y, x, term][:, None]
    return [np.eye(kh)[:, y], np.eye(kw)[:, x], scaled.T, right[y, x, term].T]


def _cp_sum(factors: list[np.ndarray]) -> np.ndarray:
    return np.einsum("yr,xr,ir,or->yxio", *factors, optimize=True)


def _cp_sweep(kernel: np.ndarray, factors: list[np.ndarray]) -> list[np.ndarray]:
    """Each factor in turn by least squares, the others held."""
    factors = list(factors)
    for axis, letter in enumerate("yxio"):
        others = [k for k in range(4) if k != axis]
        spec = ",".join("yxio"[k] + "r" for k in others)
        products = np.einsum(
            f"yxio,{spec}->{letter}r", kernel, *(factors[k] for k in others), optimize=True
        )
        gram = math.prod(factors[k].T @ factors[k] for k in others)
        # Terms that nearly coincide make the Gram matrix singular; pinv then spreads them evenly.
        factors[axis] = products @ np.linalg.pinv(gram, rcond=1e-12, hermitian=True)
    return factors


def _balanced(factors: list[np.ndarray]) -> list[np.ndarray]:
    """The same terms, each term's factors of equal norm."""
    norms = np.stack([np.linalg.norm(f, axis=0) for f in factors])
    norms = np.where(norms > 0, norms, 1.0)
    size = np.exp(np.log(norms).mean(axis=0))
    return [f * (size / n) for f, n in zip(factors, norms, strict=True)]
