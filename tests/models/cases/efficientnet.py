# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

FIELDS = {
    "stem_features": 8,
    "stages": [[3, 1, 8, 1, 1], [5, 2, 16, 2, 2]],
    "head_features": 16,
    "num_classes": 10,
}

LITE = FIELDS | {"variant": "lite0"}

CASES = [
    FamilyCase("efficientnet", FIELDS, (2, 16, 16, 3), (2, 10)),
    FamilyCase("efficientnet", LITE, (2, 16, 16, 3), (2, 10), name="lite"),
]
