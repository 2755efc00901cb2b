# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [FamilyCase("menghani_cnn", {"width": 0.05, "image_size": 8}, (2, 8, 8, 3), (2, 10))]
