# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase(
        "shufflenet_v2",
        {"stem_features": 4, "stages": [[8, 2, 2], [12, 1, 2]], "head_features": 8}
        | {"num_classes": 5},
        (2, 16, 16, 3),
        (2, 5),
    )
]
