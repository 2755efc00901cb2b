# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase(
        "mobilevit",
        {
            "stem_features": 8,
            "stages": ((2, 8, 1, 1), (2, 12, 1, 2, 16, 2)),
            "head_features": 16,
            "num_heads": 2,
            "num_classes": 5,
        },
        (2, 10, 12, 3),
        (2, 5),
    )
]
