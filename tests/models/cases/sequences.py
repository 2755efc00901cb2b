# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"vocabulary": 16, "max_length": 12, "features": 16, "depth": 2, "num_heads": 2}

CASES = [
    FamilyCase(
        "sequence_classifier", {**SMALL, "mlp_features": 24}, (2, 12), (2, 10), vocabulary=16
    ),
    FamilyCase(
        "sequence_classifier",
        {
            **SMALL,
            "mlp_features": 24,
            "pooling": "cls",
            "attention": "Linformer",
            "attention_options": {"rank": 4},
        },
        (2, 12),
        (2, 10),
        vocabulary=16,
        name="linformer",
    ),
    FamilyCase("mqar", SMALL, (2, 12), (2, 12, 16), vocabulary=16, head=False),
    FamilyCase(
        "mqar",
        {**SMALL, "mlp_features": 24, "attention": "DeltaNet"},
        (2, 12),
        (2, 12, 16),
        vocabulary=16,
        head=False,
        name="delta-net",
    ),
]
