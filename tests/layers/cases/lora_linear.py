# SPDX-License-Identifier: Apache-2.0
"""Cases of LoRALinear."""

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_layers import array


def expected(module, x):
    """The whole updated kernel W + alpha / rank A B, entry by entry, then a product."""
    a, b = array(module.lora_a), array(module.lora_b)
    kernel = array(module.kernel)
    for i in range(kernel.shape[0]):
        for o in range(kernel.shape[1]):
            kernel[i, o] += module.alpha / module.rank * (a[i] * b[:, o]).sum()
    y = x @ kernel
    return y if module.bias is None else y + array(module.bias)


def case(name, args, x, y, **kwargs):
    return Case(layers.LoRALinear, args, kwargs, x=x, y=y, name=name, oracle=expected)


CASES = [
    case("dropout", (5, 4), (3, 5), (3, 4), rank=2, alpha=3.0, dropout_rate=0.5),
    case("no dropout, no bias", (4, 6), (2, 3, 4), (2, 3, 6), rank=1, use_bias=False),
]
