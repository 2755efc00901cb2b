# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

CASES = [
    FamilyCase("mnist1d", {"variant": variant}, (2, 40, 1), (2, 10), name=variant)
    for variant in ("cnn", "linear", "mlp", "gru")
]
