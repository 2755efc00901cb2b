# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase(
        "ghostnet",
        {"stem_features": 8, "head_features": 12, "num_classes": 5}
        | {"blocks": [[3, 8, 8, 0, 1], [5, 16, 12, 0.25, 2]]},
        (2, 12, 12, 3),
        (2, 5),
    )
]
