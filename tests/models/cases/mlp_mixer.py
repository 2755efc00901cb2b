# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

_TINY = {"features": 16, "depth": 2, "image_size": 8, "patch_size": 4, "num_classes": 5}

CASES = [FamilyCase("mlp_mixer", {**_TINY, "drop_path_rate": 0.1}, (2, 8, 8, 3), (2, 5))]
