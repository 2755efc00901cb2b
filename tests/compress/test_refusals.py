# SPDX-License-Identifier: Apache-2.0
"""What structured removal refuses, restores and says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.compress import RemoveChannels, apply


class Net(nnx.Module):
    """Three linear layers and something between the first two."""

    def __init__(self, between=None, *, width=8):
        rngs = nnx.Rngs(0)
        self.a = nnx.Linear(4, width, rngs=rngs)
        self.b = nnx.Linear(8, 6, rngs=rngs)
        self.c = nnx.Linear(6, 3, rngs=rngs)
        self.between = between

    def __call__(self, x):
        x = self.a(x)
        x = x if self.between is None else self.between(x)
        return self.c(jax.nn.relu(self.b(x)))


X = jnp.ones((2, 4))


def why(log, path):
    return next(row.why for row in log.rows if row.path == path)


def test_a_literal_size_is_restored_with_its_line():
    def literal(x):
        return x.reshape(1, 8)

    small, log = apply(Net(literal), RemoveChannels("**", ratio=0.5), example=X[:1])
    assert small.a.out_features == 8
    assert small.b.kernel.shape == (8, 3)
    assert "restored: " in why(log, "a")
    line = literal.__code__.co_firstlineno + 1
    assert f"test_refusals.py:{line}: return x.reshape(1, 8)" in why(log, "a")


def test_a_cut_at_a_fixed_place_is_restored():
    """x[:, 2:] is traced for any width, but what it cuts off is then another channel."""

    def cut(x):
        return jnp.concatenate([jnp.tanh(x[:, :3]), x[:, 3:]], -1) * jnp.arange(1.0, 5.0).repeat(2)

    def swap(x):
        return jnp.concatenate([x[:, 3:], x[:, :3]], -1)

    for between in (cut, swap):
        small, log = apply(Net(between), RemoveChannels("**", ratio=0.5), example=X)
        assert small.a.out_features == 8, why(log, "a")
        assert small.b.kernel.shape == (8, 3)


class Custom(nnx.Module):
    """A linear layer of somebody else."""

    def __init__(self, hidden_dim):
        self.hidden_dim = hidden_dim
        self.weight = nnx.Param(jax.random.normal(jax.random.key(0), (4, hidden_dim)))

    def __call__(self, x):
        return x @ self.weight[...]


def test_an_unknown_module_that_owns_a_size_is_named():
    model = Net()
    model.a = Custom(8)
    small, log = apply(model, RemoveChannels("**", ratio=0.5), example=X)
    assert "a: Custom.hidden_dim=8 is of no known module" in why(log, "a")
    assert small.a.weight.shape == (4, 8)
    del model.a.hidden_dim
    small, _ = apply(model, RemoveChannels("**", ratio=0.5), example=X)
    assert small.a.weight.shape == (4, 4)


def test_channels_of_which_a_maker_is_not_matched_stay():
    class Sum(nnx.Module):
        def __init__(self):
            self.a, self.b = (nnx.Linear(4, 8, rngs=nnx.Rngs(i)) for i in range(2))
            self.c = nnx.Linear(8, 3, rngs=nnx.Rngs(2))

        def __call__(self, x):
            return self.c(self.a(x) + self.b(x))

    small, log = apply(Sum(), RemoveChannels("a", ratio=0.5), example=X)
    assert why(log, "a") == "tied to b, which the path does not match"
    assert small.a.out_features == 8
    small, _ = apply(Sum(), RemoveChannels("?", ratio=0.5), example=X)
    assert small.c.in_features == 4


def test_what_is_tied_to_the_output_says_so():
    _, log = apply(Net(), RemoveChannels("**", ratio=0.5), example=X)
    assert log.rows
    _, log = apply(Net(), RemoveChannels("c", ratio=0.5), example=X)
    assert why(log, "c") == "tied to the model's input, output or a fixed size"


def test_an_operation_that_is_not_understood_is_named():
    model = Net(lambda x: jnp.fft.fft(x).real)
    small, log = apply(model, RemoveChannels("a", ratio=0.5), example=X)
    assert "not understood (fft" in why(log, "a")
    assert small.a.out_features == 8


def test_the_model_is_left_as_it_is():
    model = Net()
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
    apply(model, RemoveChannels("**", ratio=0.5), example=X)
    after = jax.tree.leaves(nnx.state(model))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert model.a.out_features == 8


@pytest.mark.parametrize(("name", "goal"), [("macs", 0.5), ("params", 0.6), ("bytes", 300)])
def test_targets(name, goal):
    def measured(model):
        cost = el.measure.cost(model, X)
        return {"macs": cost.macs, "params": cost.params, "bytes": cost.weight_bytes}[name]

    model = Net()
    small, _ = apply(model, RemoveChannels("**", **{name: goal}), example=X)
    wanted = goal * measured(model) if goal < 1 else goal
    assert 0.6 * wanted < measured(small) <= wanted


def test_a_target_out_of_reach_states_the_best():
    with pytest.raises(ValueError, match=r"macs cannot fall from 98 to 5. The best .* is 8,"):
        apply(Net(), RemoveChannels("**", macs=5), example=X)


def test_a_target_out_of_reach_names_what_is_not_understood():
    model = Net(lambda x: jnp.fft.fft(x).real)
    with pytest.raises(ValueError, match=r"macs cannot fall .* \(not understood: fft in"):
        apply(model, RemoveChannels("**", macs=5), example=X)


def test_a_target_is_reached_around_a_group_that_is_restored():
    """The search is over again with a trace a candidate; what breaks the model stays whole."""
    model = Net(lambda x: x.reshape(-1, 8))
    small, log = apply(model, RemoveChannels("**", macs=0.7), example=X)
    assert small.a.out_features == 8
    assert "restored: " in why(log, "a")
    assert el.measure.cost(small, X).macs <= 0.7 * el.measure.cost(model, X).macs
    with pytest.raises(ValueError, match=r"best that can be reached here is 43,"):
        apply(model, RemoveChannels("**", macs=20), example=X)


def test_a_model_that_cannot_be_traced_is_named_with_its_line():
    def branch(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        apply(Net(branch), RemoveChannels("**", ratio=0.5), example=X)
    line = branch.__code__.co_firstlineno + 1
    note = caught.value.__notes__[-1]
    assert "cannot be traced on the example: TracerBoolConversionError" in note
    assert f"test_refusals.py:{line}: return x if x.sum() > 0 else -x" in note


def test_round_to():
    small, _ = apply(Net(), RemoveChannels("**", ratio=0.7, round_to=4), example=X)
    assert small.a.out_features == 4
    assert small.b.out_features == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.0}, "0 < ratio < 1"),
        ({"ratio": 0}, "positive ratio"),
        ({}, "one of them"),
        ({"ratio": 0.5, "macs": 0.5}, "one of them"),
        ({"macs": -1}, "positive ratio, macs"),
        (
            {"ratio": 0.5, "criterion": "l3"},
            "criterion of l1, l2, bn_scale, taylor, activation, random. Got",
        ),
        ({"ratio": 0.5, "scope": "all"}, "scope of group, global. Got 'all'"),
        ({"ratio": 0.5, "least": 1.0}, "0 <= least < 1. Got 1.0"),
        ({"latency_ms": 0}, "positive ratio, macs, params, bytes, latency_ms"),
        ({"ratio": float("nan")}, "positive ratio"),
        ({"ratio": 0.5, "round_to": 0}, "round_to >= 1"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        RemoveChannels("**", **settings)


def test_what_is_needed():
    with pytest.raises(ValueError, match="needs example="):
        apply(Net(), RemoveChannels("**", ratio=0.5))
    for criterion, lacks in (("activation", "data"), ("taylor", "data=.* needs loss")):
        with pytest.raises(ValueError, match=f"needs {lacks}="):
            apply(Net(), RemoveChannels("**", ratio=0.5, criterion=criterion), example=X)
    with pytest.raises(ValueError, match="activation: `data` holds no batch"):
        apply(Net(), RemoveChannels("**", ratio=0.5, criterion="activation"), example=X, data=[])


def test_weights_that_are_not_finite_are_named():
    model = Net()
    model.a.kernel.set_value(model.a.kernel[...].at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"l1: the scores of a/bias.* are not finite"):
        apply(model, RemoveChannels("**", ratio=0.5), example=X)
