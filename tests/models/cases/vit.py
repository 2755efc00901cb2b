# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

_TINY = {"features": 16, "depth": 2, "num_heads": 2, "image_size": 8, "patch_size": 4}

CASES = [
    FamilyCase("vit", {**_TINY, "num_classes": 5}, (2, 8, 8, 3), (2, 5)),
    FamilyCase(
        "vit",
        {**_TINY, "num_classes": 5, "distilled": True, "drop_path_rate": 0.1, "in_channels": 1},
        (2, 8, 8, 1),
        (2, 5),
        name="distilled",
    ),
]
