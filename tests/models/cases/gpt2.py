# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"vocabulary": 50, "max_length": 16, "features": 16, "depth": 2, "num_heads": 2}

CASES = [FamilyCase("gpt2", SMALL, (2, 7), (2, 7, 50), vocabulary=50, head=False)]
