# SPDX-License-Identifier: Apache-2.0
"""The verdict: what is measured, and the words for it; explain."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, measure
from efficient_layers.compress.verdict import Facts, Verdict

X = np.asarray(jax.random.normal(jax.random.key(1), (4, 64)))


def net() -> nnx.Module:
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(64, 64, rngs=rngs), jax.nn.relu, nnx.Linear(64, 8, rngs=rngs))


def facts(weight_bytes: int, *ms: float) -> Facts:
    times = dict(zip(("1", "16"), ms, strict=False))
    return Facts(10, 20, weight_bytes, {"f32": 2}, {}, times, {})


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (facts(100, 2.0), facts(50, 1.0), "smaller and faster here: 2.00x fewer bytes, 2.00x the"),
        (facts(100, 1.0), facts(25, 1.0), "smaller but not faster here: 4.00x fewer bytes, 1.00x"),
        (facts(100, 1.0), facts(25, 3.0), "smaller but not faster here: 4.00x fewer bytes, 0.33x"),
        (facts(100, 1.04), facts(98, 1.0), "neither smaller nor faster here"),
        (facts(100, 2.0), facts(100, 1.0), "not smaller, but faster here at batch 1"),
        (facts(9, 2.0, 2.0), facts(3, 1.0, 2.0), "smaller, and faster here at batch 1 only: "),
    ],
)
def test_the_words(before, after, words):
    assert Verdict(before, after, "cpu").words.startswith(words)
    assert "unsteady" not in Verdict(before, after, "cpu", 1.9).words
    assert "unsteady" in Verdict(before, after, "cpu", 2.1).words


@pytest.mark.verdict
def test_apply_measures_both_models():
    batches = [X, 2 * X]

    def loss(model, batch):
        return jnp.square(model(batch)).mean()

    model = net()
    steps = [compress.Quantize("**", activations="dynamic", keep_ends=False)]
    small, log = compress.apply(model, steps, example=X, data=batches, loss=loss)
    before, after = log.verdict.before, log.verdict.after
    for side, module in ((before, model), (after, small)):
        cost, ran = measure.cost(module, X[:1]), measure.executed(module, X)
        counted = (side.params, side.macs, side.weight_bytes, side.dots)
        assert counted == (cost.params, cost.macs, cost.weight_bytes, ran.dots)
        expected = np.mean([np.square(np.asarray(module(batch))).mean() for batch in batches])
        np.testing.assert_allclose(side.quality["loss"], expected, rtol=1e-5)
        assert list(side.latency_ms) == ["4"]
        assert side.latency_ms["4"] > 0
    assert log.verdict.spread >= 1
    assert log.verdict.smaller == before.weight_bytes / after.weight_bytes > 3
    assert f"verdict: {log.verdict.words}" in str(log)
    assert json.loads(json.dumps(log.to_json()))["verdict"]["words"] == log.verdict.words


@pytest.mark.verdict
def test_no_verdict_without_an_example_or_when_not_wanted():
    steps = [compress.LowRank("layers/0", rank=2)]
    assert compress.apply(net(), steps)[1].verdict is None
    log = compress.apply(net(), steps, example=X, verdict=False)[1]
    assert log.verdict is None
    assert log.to_json()["verdict"] is None


def test_compare_refuses_no_batch():
    with pytest.raises(ValueError, match="at least 1"):
        compress.compare(net(), net(), X, batches=())


def test_explain_says_what_matches_and_what_comes_too_late():
    steps = [
        compress.Prune("layers/2", sparsity=0.5),
        compress.Prune("**", sparsity=0.5),
        compress.Quantize("tail/*"),
    ]
    assert compress.explain(net(), steps).splitlines() == [
        "Prune('layers/2', sparsity=0.5)",
        "  1 Linear: layers/2",
        "Prune('**', sparsity=0.5)",
        "  layers/2: Prune('layers/2', sparsity=0.5) comes first",
        "  1 Linear: layers/0",
        "Quantize('tail/*')",
        "  matches nothing in the model as it is",
    ]
