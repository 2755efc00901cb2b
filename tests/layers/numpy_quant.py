# SPDX-License-Identifier: Apache-2.0
"""Quantisation from the definitions, in NumPy: float64 for values, int64 for codes, plain loops.

Scales are taken in float32, as stored, so that roundings fall the same way.
"""

import numpy as np


def unpacked(codes, width, size):
    """Codes of `width` bits out of bytes, the first in the lowest bits; 1 bit is -1 or 1."""
    codes = np.asarray(codes[...])
    if width == 8:
        return codes.astype(np.int64)
    rows = codes.reshape(-1, codes.shape[-1])
    out = np.zeros((len(rows), size), np.int64)
    for r, row in enumerate(rows):
        for i in range(size):
            byte = int(row[i * width // 8])
            code = byte >> (i * width % 8) & (2**width - 1)
            if width == 1:
                out[r, i] = 2 * code - 1
            else:
                out[r, i] = code - 2**width if code >= 2 ** (width - 1) else code
    return out.reshape(*codes.shape[:-1], size)


def scale_zero(part, bits, symmetric):
    """Scale and zero point of the numbers in `part`."""
    low, high = np.float32(part.min()), np.float32(part.max())
    if symmetric:
        largest = max(abs(low), abs(high))
        return np.float32(largest / np.float32(2 ** (bits - 1) - 1)) if largest else 1, 0
    low, high = min(low, np.float32(0)), max(high, np.float32(0))
    scale = np.float32((high - low) / np.float32(2**bits - 1)) if high > low else np.float32(1)
    zero = np.rint(np.float32(-(2 ** (bits - 1))) - np.float32(low / scale))
    return scale, int(np.clip(zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


def codes_of(part, scale, zero, bits, symmetric):
    least, most = -(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1
    code = np.rint(np.asarray(part, np.float32) / np.float32(scale)).astype(np.int64)
    return np.clip(code + zero, least, most)


def rounded_weight(module, variable, *, channel, inputs):
    """The weight that a layer in training computes with, part by part of its spec."""
    spec, w = module.spec, np.asarray(variable[...], np.float32)
    y = np.zeros(w.shape)
    channels = [None] if spec.granularity == "tensor" else range(w.shape[channel])
    size = spec.group_size or w.shape[inputs]
    steps = None if module.step is None else np.asarray(module.step[...], np.float32).ravel()
    for c in channels:
        for g in range(w.shape[inputs] // size):
            place = [slice(None)] * w.ndim
            if c is not None:
                place[channel] = slice(c, c + 1)
            place[inputs] = slice(g * size, (g + 1) * size)
            step = None if steps is None else steps[c or 0]
            y[tuple(place)] = _rounded(w[tuple(place)], spec, step)
    return y


def _rounded(part, spec, step):
    part = part.astype(np.float64)
    if spec.method == "binary":
        return np.where(part >= 0, 1, -1) * np.abs(part).mean()
    if spec.method == "ternary":
        large = np.abs(part) > 0.7 * np.abs(part).mean()
        return np.sign(part) * large * np.abs(part)[large].mean() if large.any() else 0 * part
    if spec.method == "lsq":
        return codes_of(part, step, 0, spec.bits, False) * np.float64(step)
    scale, zero = scale_zero(part, spec.bits, spec.symmetric)
    return (codes_of(part, scale, zero, spec.bits, spec.symmetric) - zero) * np.float64(scale)


def rounded_input(module, x, *, axes):
    """The input as a layer in eval mode rounds it; `axes` share a dynamic scale."""
    if module.spec.activations is None:
        return x
    codes, scale = integers(module, x, axes=axes)
    return codes * scale


def integers(module, x, *, axes):
    """Codes of the input minus their zero point, and the scale to multiply by."""
    spec, symmetric = module.spec, module.spec.symmetric_activations
    x = np.asarray(x, np.float32)
    if spec.activations == "static":
        if getattr(module, "input_step", None) is not None:
            step = np.float32(module.input_step[...])
            return codes_of(x, step, 0, 8, False), np.float64(step)
        ends = np.array([min(module.input_low[...], 0), max(module.input_high[...], 0)], np.float32)
        scale, zero = scale_zero(ends, 8, symmetric)
        return codes_of(x, scale, zero, 8, symmetric) - zero, np.float64(scale)
    kept = [a for a in range(x.ndim) if a not in [b % x.ndim for b in axes]]
    codes, scales = (
        np.zeros(x.shape, np.int64),
        np.zeros([x.shape[a] if a in kept else 1 for a in range(x.ndim)]),
    )
    for index in np.ndindex(*[x.shape[a] for a in kept]):
        place = [slice(None)] * x.ndim
        for a, i in zip(kept, index, strict=True):
            place[a] = slice(i, i + 1)
        scale, zero = scale_zero(x[tuple(place)], 8, symmetric)
        codes[tuple(place)] = codes_of(x[tuple(place)], scale, zero, 8, symmetric) - zero
        scales[tuple(place)] = scale
    return codes, scales
