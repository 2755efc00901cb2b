# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

FIELDS = {
    "stem_features": 8,
    "blocks": [
        [3, 8, 8, True, "relu", 1],
        [5, 24, 16, True, "hard_swish", 2],
        [3, 32, 16, False, "hard_swish", 1],
    ],
    "last_features": 32,
    "head_features": 16,
    "num_classes": 10,
}

CASES = [FamilyCase("mobilenet_v3", FIELDS, (2, 16, 16, 3), (2, 10))]
