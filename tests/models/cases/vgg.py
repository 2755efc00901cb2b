# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase(
        "vgg",
        {"stages": [[4, 1], [6, 2]], "pool_size": 2, "hidden_features": 8, "num_classes": 5}
        | {"batch_norm": True, "dropout_rate": 0.2},
        (2, 12, 13, 3),
        (2, 5),
    )
]
