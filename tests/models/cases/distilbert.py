# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"vocabulary": 50, "max_length": 16, "features": 16, "depth": 2, "num_heads": 2}

CASES = [FamilyCase("distilbert", {**SMALL, "num_classes": 5}, (2, 7), (2, 5), vocabulary=50)]
