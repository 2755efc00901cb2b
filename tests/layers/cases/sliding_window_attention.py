# SPDX-License-Identifier: Apache-2.0
"""Cases of SlidingWindowAttention."""

from efficient_layers import layers
from tests.layers.cases.multi_head_attention import case

CASES = [
    case(
        layers.SlidingWindowAttention,
        "",
        (2, 7, 6),
        2,
        window=3,
        causal=True,
        position=layers.RoPE(base=100.0, fraction=0.7),
        dropout_rate=0.25,
    ),
    case(layers.SlidingWindowAttention, "both sides", (2, 6, 8), 4, window=2, num_kv_heads=2),
]
