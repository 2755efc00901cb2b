# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

FIELDS = {"stages": [[4, 2, 2], [8, 1, 2]], "num_classes": 5}

CASES = [
    FamilyCase("repvgg", FIELDS, (2, 12, 12, 3), (2, 5)),
    FamilyCase("repvgg", FIELDS | {"deploy": True}, (2, 12, 12, 3), (2, 5), name="deploy"),
]
