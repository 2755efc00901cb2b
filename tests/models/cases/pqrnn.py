# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"code_size": 32, "features": 12, "state_features": 8, "depth": 2, "num_classes": 3}

CASES = [FamilyCase("pqrnn", SMALL, (2, 9), (2, 3), vocabulary=2**31 - 1)]
