# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"vocabulary": 50, "max_length": 16, "features": 16, "depth": 4, "num_heads": 2}

CASES = [
    FamilyCase(
        "albert",
        {**SMALL, "embedding_features": 8, "groups": 2, "num_classes": 5, "dropout_rate": 0.1},
        (2, 7),
        (2, 5),
        vocabulary=50,
        extra={"segments": (2, 7)},
    )
]
