# SPDX-License-Identifier: Apache-2.0
"""Cases of Embedding and FactorizedEmbedding."""

import numpy as np

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array, linear


def picked(table: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Row by row."""
    y = np.zeros((*x.shape, *table.shape[1:]))
    for place in np.ndindex(*x.shape):
        y[place] = table[int(x[place])]
    return y


def one_table(module, x):
    return picked(array(module.embedding), x)


def two_tables(module, x):
    return linear(module.project, picked(array(module.embed.embedding), x))


CASES = [
    Case(layers.Embedding, (11, 4), x=(2, 5), y=(2, 5, 4), oracle=one_table, vocabulary=11),
    Case(layers.Embedding, (1, 3), x=(2,), y=(2, 3), name="of one", oracle=one_table, vocabulary=1),
    Case(
        layers.FactorizedEmbedding,
        (11, 6),
        {"rank": 3},
        x=(2, 5),
        y=(2, 5, 6),
        oracle=two_tables,
        vocabulary=11,
    ),
    Case(
        layers.FactorizedEmbedding,
        (5, 4),
        {"rank": 2, "use_bias": True},
        x=(3,),
        y=(3, 4),
        name="bias",
        oracle=two_tables,
        vocabulary=5,
    ),
]
