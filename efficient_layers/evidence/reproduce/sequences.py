# SPDX-License-Identifier: Apache-2.0
"""Long Range Arena's averages; the small models of MNIST-1D and of induction heads."""

from collections.abc import Mapping
from fractions import Fraction

from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce.counts import NO_FAMILY, exactly, size
from efficient_layers.evidence.reproduce.scores import mean
from efficient_layers.evidence.verdict import Computed

Cells = Mapping[str, Computed | str]


def arena(row: Row) -> Cells:
    """Path-X, which all fail, is left out."""
    tasks = ("ListOps", "Text", "Retrieval", "Image", "Pathfinder")
    return {"avg": mean([row[task]] for task in tasks)}


def induction(row: Row) -> Cells:
    """Two attention layers of width 128, see the table's `how`."""
    if not row["model"].startswith("MHA"):
        return {"params_K": NO_FAMILY}
    d, vocabulary = 128, 16
    layer = 4 * (d * d + d) + 2 * d
    return {"params_K": Computed(Fraction(2 * layer + 2 * d + 2 * vocabulary * d, 1000))}


def mnist1d(row: Row) -> Cells:
    """The notebook's four models."""
    variant = row["model"].removesuffix("Base").lower()
    return {
        "params": exactly(size("mnist1d", variant={"conv": "cnn"}.get(variant, variant)).params)
    }


TABLES = {
    "lra_t1": arena,
    "nystrom_lra": arena,
    "mamba_t11": induction,
    "mnist1d_notebook": mnist1d,
}
