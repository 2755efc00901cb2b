# SPDX-License-Identifier: Apache-2.0
"""Cases of BlockSparseAttention."""

from efficient_layers import layers
from tests.layers.cases.multi_head_attention import case
from tests.layers.numpy_attention import attention


def expected(module, x, seen=None):
    """Every query over the keys whose block its block sees."""
    p = module.pattern
    table, valid = p.table(x.shape[-2] // p.block, causal=module.causal)

    def chosen(b, h, i, j):
        own, other = i // p.block, j // p.block
        found = own < p.first or other in table[own][valid[own]]
        return found and (seen is None or seen(b, h, i, j))

    return attention(module, x, seen=chosen)


CASES = [
    case(
        layers.BlockSparseAttention,
        "",
        (2, 12, 8),
        2,
        pattern=layers.BlockPattern(block=2, first=1, random=1),
        position=layers.RoPE(),
        dropout_rate=0.25,
        oracle=expected,
    ),
    case(
        layers.BlockSparseAttention,
        "causal",
        (2, 12, 8),
        4,
        pattern=layers.BlockPattern(block=2, first=1, window=3, random=1),
        num_kv_heads=2,
        causal=True,
        position=layers.ALiBi(),
        oracle=expected,
    ),
]
