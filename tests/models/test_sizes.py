# SPDX-License-Identifier: Apache-2.0
"""Parameters, MACs and activations of published variants: third_party/model_sizes/*.csv."""

import csv
import dataclasses
import math
from decimal import Decimal
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models.paths import modules, put
from tests.models.published import published_parameters

TABLES = sorted((Path(__file__).parents[2] / "third_party" / "model_sizes").glob("*.csv"))


@dataclasses.dataclass(frozen=True)
class Row:
    """`source`: "timm", "torchvision" or "transformers"; empty cells: nothing was published."""

    name: str
    source: str
    params: int
    image_size: str
    gmacs: str
    macts: str


def rows(path):
    with path.open(newline="") as file:
        for cells in csv.DictReader(line for line in file if not line.startswith("#")):
            yield Row(**{**cells, "params": int(cells["params"])})


def tables():
    """The first row of each table is quick; the others are for `make battery`."""
    for path in TABLES:
        for index, row in enumerate(rows(path)):
            marks = [pytest.mark.slow] if index else [pytest.mark.fast]
            yield pytest.param(row, marks=marks, id=f"{row.source}:{row.name}")


def abstract(name):
    return nnx.eval_shape(lambda: el.models.create(name, rngs=nnx.Rngs(0)))


def rounds_to(value, printed):
    """`printed` is `value` rounded to its digits."""
    unit = Decimal(1).scaleb(Decimal(printed).as_tuple().exponent)
    return abs(Decimal(value) - Decimal(printed)) <= unit * Decimal("0.500001")


def test_at_least_120_variants():
    assert len({(row.source, row.name) for path in TABLES for row in rows(path)}) >= 120


@pytest.mark.parametrize("row", list(tables()))
def test_published_integers(row):
    model = abstract(row.name)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert params == row.params
    if row.gmacs:
        size = int(row.image_size)
        cost = el.measure.cost(model, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
        macs = cost.macs + (timm_norms(model, size) if row.source == "timm" else 0)
        assert rounds_to(macs / 1e9, row.gmacs), macs
        if row.macts:
            assert rounds_to(cost.activations / 1e6, row.macts), cost.activations


class Counted(nnx.Module):
    """A norm that adds the elements of its inputs, `weight` each, to `counted`."""

    def __init__(self, norm, weight, counted):
        self.norm, self.weight, self.add = norm, weight, counted.append

    def __call__(self, x):
        self.add(self.weight * math.prod(x.shape))
        return self.norm(x)


def timm_norms(model, size):
    """2 x elements through BatchNorm + 5 x through LayerNorm, which timm adds in `gmacs`."""
    counted = []
    for path, module in list(modules(model)):
        weight = {nnx.BatchNorm: 2, nnx.LayerNorm: 5}
        per_element = next((n for kind, n in weight.items() if isinstance(module, kind)), 0)
        if per_element:
            put(model, path, Counted(module, per_element, counted))
    model.eval()
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    jax.eval_shape(lambda state, x: nnx.merge(graphdef, state, copy=True)(x), state, x)
    return sum(counted)


@pytest.mark.oracle
@pytest.mark.parametrize("row", list(tables()))
def test_the_table_is_what_the_package_says(row):
    assert published_parameters(row.source, row.name) == row.params
