# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

FIELDS = {"stem_features": 8, "stages": [[8, 1, 1], [16, 2, 2]], "num_classes": 10}

CASES = [
    FamilyCase("mobilenet_v1", FIELDS, (2, 16, 16, 3), (2, 10)),
    FamilyCase(
        "mobilenet_v1",
        {**FIELDS, "head_features": 16, "separable": False},
        (2, 16, 16, 3),
        (2, 10),
        name="full-convolutions",
    ),
]
