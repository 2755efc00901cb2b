# SPDX-License-Identifier: Apache-2.0
"""Cases of `layers.Fire`."""

import numpy as np

from efficient_layers import layers
from tests.layers import numpy_layers
from tests.layers.case import Case


def expected(module, x):
    squeezed = np.maximum(numpy_layers.conv(module.squeeze, x), 0)
    wide = [numpy_layers.conv(part, squeezed) for part in (module.expand1x1, module.expand3x3)]
    return np.maximum(np.concatenate(wide, axis=-1), 0)


CASES = [Case(layers.Fire, (6, 3, 4, 5), x=(2, 5, 4, 6), y=(2, 5, 4, 9), oracle=expected)]
