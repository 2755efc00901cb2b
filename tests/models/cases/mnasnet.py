# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

FIELDS = {
    "stem_features": 8,
    "stages": [[3, 1, 8, 1, 1], [5, 3, 16, 2, 2, 0.25], [3, 2, 16, 1, 1]],
    "head_features": 16,
    "num_classes": 10,
}

CASES = [FamilyCase("mnasnet", FIELDS, (2, 16, 16, 3), (2, 10))]
