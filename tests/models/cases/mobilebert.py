# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {
    "vocabulary": 50,
    "max_length": 16,
    "embedding_features": 8,
    "features": 16,
    "bottleneck_features": 12,
    "depth": 2,
    "num_heads": 2,
    "mlp_features": 20,
    "num_mlps": 2,
}

CASES = [
    FamilyCase(
        "mobilebert",
        {**SMALL, "num_classes": 5},
        (2, 7),
        (2, 5),
        vocabulary=50,
        extra={"segments": (2, 7)},
    )
]
