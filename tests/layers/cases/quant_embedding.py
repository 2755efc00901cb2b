# SPDX-License-Identifier: Apache-2.0
"""Cases of QuantEmbedding."""

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_quant import rounded_weight


def expected(module, x):
    return rounded_weight(module, module.embedding, channel=0, inputs=1)[x.astype(int)]


def case(name, features, **spec):
    return Case(
        layers.QuantEmbedding,
        (11, features),
        {"spec": layers.QuantSpec(**spec)},
        x=(2, 5),
        y=(2, 5, features),
        name=name,
        oracle=expected,
        smooth="never",
        vocabulary=11,
    )


CASES = [
    case("int8, noise", 4, noise=0.5),
    case("int4", 5, bits=4),
    case("lsq", 4, bits=4, method="lsq"),
]
