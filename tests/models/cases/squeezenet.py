# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase(
        "squeezenet",
        {"stem_features": 8, "blocks": [[4, 6, 6, True], [4, 8, 8, False]], "num_classes": 5},
        (2, 16, 15, 3),
        (2, 5),
    )
]
