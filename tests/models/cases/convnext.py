# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

_TINY = {"num_classes": 5, "stages": ((8, 1), (12, 2)), "layer_scale": 0.1}

CASES = [
    FamilyCase("convnext", _TINY, (2, 9, 12, 3), (2, 5)),
    FamilyCase(
        "convnext",
        {**_TINY, "stem": "overlap_tiered", "drop_path_rate": 0.1, "in_channels": 1},
        (2, 9, 12, 1),
        (2, 5),
        name="overlap",
    ),
]
