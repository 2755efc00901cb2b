# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

STAGES = [[4, 1, 1], [8, 2, 2]]

CASES = [
    FamilyCase(
        "resnet",
        {"variant": "cifar20", "stem_features": 4, "stages": STAGES},
        (2, 8, 8, 3),
        (2, 10),
        name="cifar",
    ),
    FamilyCase(
        "resnet",
        {"stem_features": 4, "stages": STAGES, "groups": 2, "width_per_group": 32}
        | {"num_classes": 5},
        (2, 16, 16, 3),
        (2, 5),
        name="bottleneck",
    ),
]
