# SPDX-License-Identifier: Apache-2.0
"""Weights of clustered layers from the definition: bits out of planes, entry by entry."""

import numpy as np


def weights(module):
    """(*s, channels) in float64."""
    packed = np.asarray(module.codes[...])
    codebook = np.asarray(module.codebook[...], np.float64).reshape(module.groups, -1)
    shape = module.codes.get_metadata("logical_shape")
    channels = shape[-1]
    out = np.zeros(shape)
    for place in np.ndindex(*shape):
        code = code_at(packed[place[:-1]], module.bits, channels, place[-1]) - module.keep_zeros
        group = place[-1] // (channels // module.groups)
        out[place] = codebook[group, code] if code >= 0 else 0
    return out


def code_at(row, bits, size, index):
    """The code of channel `index` in the bytes of a row: planes of 8, 4, 2, 1 bits."""
    code = shift = start = 0
    for width in (8, 4, 2, 1):
        if bits & width:
            place = index * width
            code |= (int(row[start + place // 8]) >> place % 8 & (2**width - 1)) << shift
            shift += width
            start += -(-size * width // 8)
    return code
