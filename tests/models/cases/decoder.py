# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {
    "vocabulary": 50,
    "max_length": 32,
    "features": 16,
    "depth": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_features": 24,
}

CASES = [
    FamilyCase("decoder", SMALL, (2, 7), (2, 7, 50), vocabulary=50, head=False),
    FamilyCase(
        "decoder",
        {
            **SMALL,
            "tied": False,
            "attention": "GatedLinearAttention",
            "attention_options": {"decay_rank": 4, "chunk_size": 4},
        },
        (2, 7),
        (2, 7, 50),
        vocabulary=50,
        head=False,
        name="gated-linear",
    ),
]
