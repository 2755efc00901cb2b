# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [FamilyCase("mobilenet_v2", {"variant": "digits", "width": 0.35}, (2, 8, 8, 1), (2, 10))]
