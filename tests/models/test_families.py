# SPDX-License-Identifier: Apache-2.0
"""What every family promises: shapes, features, named intermediates, JSON, no hidden state."""

import inspect
import json

import jax
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.learn import call
from efficient_layers.models import registry
from tests.models.case import all_cases

CASES = all_cases()
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def abstract(case, **fields):
    model = nnx.eval_shape(
        lambda: el.models.create(case.family, rngs=nnx.Rngs(0), **{**case.fields, **fields})
    )
    model.eval()
    return model


def shapes(model, case):
    """(logits' shape, {name: shape} of `out`), nothing computed."""
    graphdef, state = nnx.split(model)

    def run(state, inputs):
        out = {}
        return call(nnx.merge(graphdef, state, copy=True), inputs, out=out), out

    logits, out = jax.eval_shape(run, state, case.inputs())
    return logits.shape, {name: value.shape for name, value in out.items()}


def test_every_family_has_a_case():
    assert {case.family for case in CASES} == set(registry.FAMILIES)


@pytest.mark.fast
@each
def test_logits_and_intermediates(case):
    model = abstract(case)
    logits, out = shapes(model, case)
    assert logits == case.logits
    assert out["logits"] == case.logits
    assert len(out) > 2
    assert {"rngs", "out"} >= set(inspect.signature(model).parameters) & {"rngs", "out"}
    assert model.config == registry.FAMILIES[case.family].config(**case.fields)


@pytest.mark.fast
@each
def test_features(case):
    if not case.head:
        pytest.skip(f"{case.family} has no classifier to leave out")
    _, out = shapes(abstract(case), case)
    features, rest = shapes(abstract(case, num_classes=0), case)
    assert features == out["features"]
    assert "logits" not in rest


@pytest.mark.fast
@each
def test_describe_round_trips(case):
    first = el.models.describe(case.family, **case.fields)
    again = json.loads(json.dumps(first))
    assert el.models.describe(again["name"], **again["fields"]) == first


@pytest.mark.fast
@each
def test_no_random_state_and_hashable_config(case):
    model = abstract(case)
    assert not jax.tree.leaves(nnx.state(model, nnx.RngState))
    hash(model.config)


@pytest.mark.slow
@each
def test_every_parameter_has_a_gradient(case):
    """In train mode under jit: a finite loss, and no parameter without a gradient."""
    model = el.models.create(case.family, rngs=nnx.Rngs(0), **case.fields)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        y = call(merged, case.inputs(), rngs=nnx.Rngs(dropout=1))
        return jax.nn.log_softmax(y)[..., 0].mean() + (y**2).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params, rest)
    assert np.isfinite(value)
    flat = nnx.to_flat_state(grads)
    still = ["/".join(map(str, p)) for p, leaf in flat if not np.any(np.asarray(leaf[...]))]
    assert not still


@pytest.mark.slow
@each
def test_equal_seeds_give_equal_weights(case):
    models = [
        el.models.create(case.family, rngs=nnx.Rngs(seed), **case.fields) for seed in (3, 3, 4)
    ]
    first, second, other = (jax.tree.leaves(nnx.state(m, nnx.Param)) for m in models)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
