# SPDX-License-Identifier: Apache-2.0
"""Cases of MultiHeadAttention, GroupedQueryAttention, MultiQueryAttention."""

from efficient_layers import layers
from tests.layers.case import Case
from tests.layers.numpy_attention import attention


def case(layer, name, x, *args, oracle=attention, **kwargs):
    return Case(layer, (x[-1], *args), kwargs, x=x, y=x, name=name, oracle=oracle)


CASES = [
    case(layers.MultiHeadAttention, "", (2, 5, 6), 2, dropout_rate=0.25),
    case(
        layers.MultiHeadAttention,
        "causal, RoPE, qk_norm, no bias",
        (3, 4, 6),
        2,
        head_dim=6,
        causal=True,
        position=layers.RoPE(fraction=0.7),
        qk_norm=True,
        use_bias=False,
    ),
    case(layers.MultiHeadAttention, "ALiBi", (2, 5, 4), 4, position=layers.ALiBi()),
    case(
        layers.GroupedQueryAttention,
        "",
        (2, 5, 8),
        4,
        num_kv_heads=2,
        causal=True,
        position=layers.RoPE(interleaved=True),
        dropout_rate=0.25,
    ),
    case(layers.MultiQueryAttention, "", (2, 2, 4, 6), 3, dropout_rate=0.25),
]
