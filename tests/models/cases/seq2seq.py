# SPDX-License-Identifier: Apache-2.0
from tests.models.case import FamilyCase

SMALL = {"vocabulary": 11, "source_vocabulary": 13, "features": 8}

CASES = [
    FamilyCase(
        "seq2seq",
        {**SMALL, "cell": cell},
        (2, 7),
        (2, 5, 11),
        vocabulary=13,
        extra={"target": (2, 5)},
        head=False,
        name=cell,
    )
    for cell in ("lstm", "gru")
]
