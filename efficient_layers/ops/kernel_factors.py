# SPDX-License-Identifier: Apache-2.0
"""Low-rank factors of a kernel (kh, kw, in, out) or (in, out): SVD, spatial, Tucker-2, CP.

For weights that exist already: computed once, outside jit, in NumPy and float64, the same numbers
on every run. But for CP, factors of a larger rank never fit worse, and `*_energy` says how well
each rank fits without making its factors: the share of the kernel's squared norm that is kept,
1 - |K - K'|^2 / |K|^2.
"""

import math
from typing import NamedTuple

import numpy as np


class SVDFactors(NamedTuple):
    """reduce (kh, kw, in, rank), expand (1, 1, rank, out); (in, rank), (rank, out) of a matrix."""

    reduce: np.ndarray
    expand: np.ndarray


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


def svd_limit(shape: tuple[int, ...]) -> int:
    """The rank at which `svd_factors` are exact: of a matrix of (kh kw) in x out."""
    return min(math.prod(shape[:-1]), shape[-1])


def spatial_limit(shape: tuple[int, ...]) -> int:
    """The rank at which `spatial_factors` are exact: of a matrix of kh in x kw out."""
    kh, kw, inputs, outputs = shape
    return min(kh * inputs, kw * outputs)


def cp_limit(shape: tuple[int, ...]) -> int:
    """A rank at which `cp_factors` are exact: an SVD for each of the kh kw positions."""
    kh, kw, inputs, outputs = shape
    return kh * kw * min(inputs, outputs)


def svd_factors(kernel: np.ndarray, rank: int, *, gram: np.ndarray | None = None) -> SVDFactors:
    """K[..., i, o] = sum_r reduce[..., i, r] expand[r, o], nearest in the Frobenius norm.

    With W the kernel as a matrix of (... i) rows: a truncated SVD, its singular values shared
    evenly between the factors. With `gram` = X^T X of the inputs X, nearest in the outputs instead:
    |X W - X W'|^2 = |L^T (W - W')|^2 where L L^T = X^T X (Cholesky), so W' is L^-T times the
    truncated SVD of L^T W. Directions that X does not take have no weight: 1e-6 of the mean of the
    diagonal is added to it.

    Reference: Eckart & Young, 1936; with `gram`: Chen et al., *DRONE: Data-aware Low-rank
    Compression for Large NLP Models*, NeurIPS 2021; Wang et al., *SVD-LLM* (arXiv 2403.07378),
    section 3.1.

    Raises:
      ValueError: a rank that the matrix cannot have; a gram of another shape.
    """
    check_rank("svd_factors", rank, svd_limit(kernel.shape), "(kh kw) in x out")
    whitened, lower = _whitened(kernel, gram)
    left, values, right = np.linalg.svd(whitened, full_matrices=False)
    root = np.sqrt(values[:rank])
    reduce = left[:, :rank] * root
    if lower is not None:
        reduce = np.linalg.solve(lower.T, reduce)
    reduce = reduce.reshape(*kernel.shape[:-1], rank)
    expand = root[:, None] * right[:rank]
    return SVDFactors(reduce, expand.reshape((1,) * (kernel.ndim - 2) + expand.shape))


def svd_energy(kernel: np.ndarray, *, gram: np.ndarray | None = None) -> np.ndarray:
    """What `svd_factors` of rank 1, 2, ... keep of |W|^2; with `gram`, of |X W|^2."""
    return _cumulated(np.linalg.svd(_whitened(kernel, gram)[0], compute_uv=False) ** 2)


def _whitened(kernel: np.ndarray, gram: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """L^T W and L, of L L^T = gram; W and None without one."""
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    if gram is None:
        return matrix, None
    if gram.shape != 2 * matrix.shape[:1]:
        raise ValueError(
            f"A kernel with {len(matrix)} rows expects a gram of {2 * matrix.shape[:1]}. "
            f"Got {gram.shape}."
        )
    size = float(np.trace(gram)) / len(gram)
    if size == 0:  # nothing goes in: any factors will do
        return matrix, None
    # Sums in float32 may leave an eigenvalue below 0 by 1e-7 of the largest.
    damping = 1e-6
    while True:
        try:
            lower = np.linalg.cholesky(gram + damping * size * np.eye(len(gram)))
        except np.linalg.LinAlgError:
            damping *= 10
        else:
            return lower.T @ matrix, lower


def _cumulated(energies: np.ndarray) -> np.ndarray:
    """Running sums as shares of the whole; 1 where there is nothing to keep."""
    sums = np.cumsum(energies)
    return sums / sums[-1] if sums[-1] > 0 else np.ones_like(sums)


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
    left, values, right = np.linalg.svd(_separated(kernel), full_matrices=False)
    root = np.sqrt(values[:rank])
    vertical = (left[:, :rank] * root).reshape(kh, 1, inputs, rank)
    horizontal = (root[:, None] * right[:rank]).reshape(rank, kw, outputs)
    return SpatialFactors(vertical, horizontal.transpose(1, 0, 2)[None])


def spatial_energy(kernel: np.ndarray) -> np.ndarray:
    """What `spatial_factors` of rank 1, 2, ... keep of |K|^2."""
    return _cumulated(np.linalg.svd(_separated(kernel), compute_uv=False) ** 2)


def _separated(kernel: np.ndarray) -> np.ndarray:
    """(kh, kw, in, out) as a matrix of (kh in) x (kw out)."""
    kh, kw, inputs, outputs = kernel.shape
    matrix = np.asarray(kernel, np.float64).transpose(0, 2, 1, 3)
    return matrix.reshape(kh * inputs, kw * outputs)


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
    inner, outer = (_leading(kernel, axis)[:, :n] for axis, n in zip((2, 3), ranks, strict=True))
    core = np.einsum("yxio,ir,os->yxrs", kernel, inner, outer, optimize=True)
    return TuckerFactors(inner[None, None], core, outer.T[None, None])


def tucker2_energy(kernel: np.ndarray) -> np.ndarray:
    """[r - 1, s - 1]: what `tucker2_factors` of ranks (r, s) keep of |K|^2, (in, out).

    The bases are orthonormal and those of lower ranks lead those of higher ones, so it is the part
    of the full core's squared norm that the first r and s of its rows and columns hold.
    """
    kernel = np.asarray(kernel, np.float64)
    bases = _leading(kernel, 2), _leading(kernel, 3)
    core = np.einsum("yxio,ir,os->yxrs", kernel, *bases, optimize=True)
    sums = np.square(core).sum((0, 1)).cumsum(0).cumsum(1)
    return sums / sums[-1, -1] if sums[-1, -1] > 0 else np.ones_like(sums)


def _leading(kernel: np.ndarray, axis: int) -> np.ndarray:
    """The left singular vectors of `kernel` unfolded along `axis`, the greatest first."""
    unfolded = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    _, vectors = np.linalg.eigh(unfolded @ unfolded.T)  # ascending
    return vectors[:, ::-1]


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


def cp_energy(kernel: np.ndarray, factors: CPFactors) -> float:
    """What `factors` keep of |K|^2."""
    i, y, x, o = (f.reshape(-1, f.shape[-1]) for f in (*factors[:3], factors.expand[0, 0].T))
    rest = np.square(kernel - _cp_sum([y, x, i, o])).sum()
    return 1.0 - float(rest / max(np.square(kernel).sum(), np.finfo(np.float64).tiny))


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
