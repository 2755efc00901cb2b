# SPDX-License-Identifier: Apache-2.0
"""Prune against NumPy and arithmetic by hand; against torch: test_prune_oracle.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress import apply
from efficient_layers.compress.patterns import erk, lowest, parse
from efficient_layers.compress.prune import Prune

pytestmark = pytest.mark.fast
RNG = np.random.default_rng(0)


class Net(nnx.Module):
    """A convolution, a depthwise one, a norm, two dense layers."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = layers.Conv(4, 8, (3, 3), rngs=rngs)
        self.depthwise = layers.DepthwiseConv(8, 3, rngs=rngs)
        self.bn = nnx.BatchNorm(8, rngs=rngs)
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.head = nnx.Linear(16, 6, rngs=rngs)

    def __call__(self, x):
        x = self.bn(self.depthwise(self.conv(x))).mean((1, 2))
        return self.head(nnx.relu(self.hidden(x)))


@functools.cache
def example() -> Net:
    """Made once: nothing below changes it."""
    return Net()


def dense(kernel, bias=None):
    kernel = np.asarray(kernel, np.float32)
    made = nnx.Linear(*kernel.shape, use_bias=bias is not None, rngs=nnx.Rngs(0))
    made.kernel.set_value(jnp.asarray(kernel))
    return nnx.Sequential(made)


def pruned(kernel, **settings):
    given = {k: settings.pop(k) for k in ("data", "loss") if k in settings}
    small, _ = apply(dense(kernel), [Prune("layers/0", **settings)], **given)
    return np.asarray(small.layers[0].kernel[...])


def kernels(model):
    return {
        n: np.asarray(getattr(model, n).kernel[...])
        for n in ("conv", "depthwise", "hidden", "head")
    }


# Patterns -----------------------------------------------------------------------------------------


def test_two_of_four_by_hand():
    kernel = np.array([[1, -8], [-4, 2], [3, 0.5], [2, -1], [5, 5], [5, 5], [5, 5], [5, 5.0]])
    expected = np.array([[0, -8], [-4, 2], [3, 0], [0, 0], [5, 5], [5, 5], [0, 0], [0, 0.0]])
    np.testing.assert_array_equal(pruned(kernel, pattern="2:4"), expected)


@pytest.mark.parametrize(("n", "m"), [(1, 2), (1, 4), (3, 4), (2, 8)])
def test_n_of_m_of_a_convolution_run_along_its_inputs(n, m):
    conv = nnx.Sequential(layers.Conv(8, 3, (2, 2), rngs=nnx.Rngs(0)))
    small, log = apply(conv, [Prune("layers/*", pattern=f"{n}:{m}")])
    before = np.asarray(conv.layers[0].kernel[...])
    after = np.asarray(small.layers[0].kernel[...])
    for y, x, group, o in np.ndindex(2, 2, 8 // m, 3):
        part = before[y, x, group * m : (group + 1) * m, o]
        kept = np.argsort(np.abs(part))[-n:]
        expected = np.zeros_like(part)
        expected[kept] = part[kept]
        np.testing.assert_array_equal(after[y, x, group * m : (group + 1) * m, o], expected)
    assert f"{1 - n / m:.1%}" in log.touched()[0].why


def test_blocks_by_hand():
    kernel = np.array([[9, 0.1, 2, 2], [0.1, 0.1, 2, 2], [1, 1, 3, 0], [1, 1, 0, 0.5]])
    expected = np.array([[9, 0.1, 2, 2], [0.1, 0.1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    for pattern in ("2x2", (2, 2), [2, 2]):
        np.testing.assert_array_equal(
            pruned(kernel, sparsity=0.5, pattern=pattern), expected.astype(np.float32)
        )


def test_what_is_zero_counts():
    once = pruned(RNG.normal(size=(10, 10)), sparsity=0.5, method="random")
    twice = pruned(once, sparsity=0.7, method="random", seed=9)
    assert (twice == 0).sum() == 70
    assert (twice[once == 0] == 0).all()


@pytest.mark.parametrize("count", [0, 1, 4, 7, 9])
def test_lowest_takes_exactly_so_many_and_of_equals_the_first(count):
    values = np.array([3, 1, 1, 2, -np.inf, 2, 1, 5, 2], np.float32)
    expected = np.zeros(9, bool)
    expected[np.argsort(values, kind="stable")[:count]] = True
    np.testing.assert_array_equal(lowest(values, count), expected)
    np.testing.assert_array_equal(jax.jit(lowest)(values, count), expected)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.95, 0.99])
def test_erk_is_the_published_density(sparsity):
    shapes = {"a": (3, 3, 3, 16), "b": (3, 3, 1, 16), "c": (64, 128), "d": (128, 10)}
    raw = {k: sum(s) / np.prod(s) for k, s in shapes.items()}
    size = {k: np.prod(s) for k, s in shapes.items()}
    low, high = 0.0, 1e6  # the e at which the densities, none above 1, give the sparsity
    for _ in range(200):
        e = (low + high) / 2
        kept = sum(min(1, e * raw[k]) * size[k] for k in shapes)
        low, high = (e, high) if kept < (1 - sparsity) * sum(size.values()) else (low, e)
    found = erk(shapes, sparsity)
    for name in shapes:
        assert found[name] == pytest.approx(1 - min(1, high * raw[name]), abs=1e-6)


def test_erk_keeps_small_arrays_dense_and_the_total():
    small, _ = apply(example(), [Prune("**", sparsity=0.8, distribution="erk")])
    found = kernels(small)
    shares = {name: (w == 0).mean() for name, w in found.items()}
    assert shares["head"] < shares["depthwise"] < shares["hidden"] < shares["conv"]
    zeros, size = (sum(f(w) for w in found.values()) for f in (lambda w: (w == 0).sum(), np.size))
    assert abs(zeros - 0.8 * size) <= 2


# Criteria that look at data -----------------------------------------------------------------------

KERNEL = RNG.normal(size=(6, 4)).astype(np.float32)
BATCHES = [RNG.normal(size=(5, 6)).astype(np.float32) for _ in range(3)]


def squares(model, x):
    return 0.5 * (model(x) ** 2).sum()


def lowest_half_zeroed(scores):
    gone = np.argsort(scores.ravel())[:12]
    expected = KERNEL.copy().ravel()
    expected[gone] = 0
    return expected.reshape(KERNEL.shape)


@pytest.mark.parametrize("method", ["taylor", "snip", "movement"])
def test_gradient_criteria_are_numpys(method):
    gradients = [x.T @ (x @ KERNEL) for x in BATCHES]  # of sum((x w)^2) / 2
    products = [g * KERNEL for g in gradients]
    scores = {
        "taylor": np.mean([p**2 for p in products], 0),
        "snip": np.abs(np.mean(products, 0)),
        "movement": -np.mean(products, 0),
    }[method]
    found = pruned(KERNEL, sparsity=0.5, method=method, data=BATCHES, loss=squares)
    np.testing.assert_array_equal(found, lowest_half_zeroed(scores))


@pytest.mark.parametrize("loss", [None, squares])
def test_wanda_compares_within_an_output(loss):
    norms = np.sqrt(sum((x**2).sum(0) for x in BATCHES))
    scores = np.abs(KERNEL) * norms[:, None]
    expected = KERNEL.copy()
    for o in range(4):
        expected[np.argsort(scores[:, o])[:3], o] = 0
    found = pruned(KERNEL, sparsity=0.5, method="wanda", data=BATCHES, loss=loss)
    np.testing.assert_array_equal(found, expected)


def test_wanda_with_two_of_four_and_inside_attention():
    model = nnx.Sequential(layers.MultiHeadAttention(8, 2, rngs=nnx.Rngs(0)))
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    small, _ = apply(model, [Prune("**", method="wanda", pattern="2:4")], data=[x])
    score = (
        np.abs(np.asarray(model.layers[0].key.kernel[...]))
        * np.linalg.norm(x.reshape(-1, 8), axis=0)[:, None]
    )
    kept = np.asarray(small.layers[0].key.kernel[...]) != 0
    for group, o in np.ndindex(2, 8):
        part = slice(4 * group, 4 * group + 4)
        assert set(np.flatnonzero(kept[part, o])) == set(np.argsort(score[part, o])[-2:])
    assert type(small.layers[0].key) is nnx.Linear


def test_wanda_takes_convolutions_and_names_what_it_cannot_score():
    x = RNG.normal(size=(2, 5, 5, 4)).astype(np.float32)
    _, log = apply(example(), [Prune("**", sparsity=0.5, method="wanda")], data=[x])
    assert {row.path for row in log.touched()} == {"conv", "hidden", "head"}
    assert {row.path: row.why for row in log.skipped()} == {
        "depthwise": "wanda has no scores for a DepthwiseConv",
        "bn": "no float weights of two or more dimensions",
    }


# The rest -----------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_is_and_only_kernels_change():
    net = example()
    before = nnx.to_pure_dict(nnx.state(net))
    small, _ = apply(net, [Prune("**", sparsity=0.5)])
    after = nnx.to_pure_dict(nnx.state(net))
    assert all((before[n][k] == after[n][k]).all() for n in before for k in before[n])
    found = nnx.to_pure_dict(nnx.state(small))
    for name, own in before.items():
        for key, value in own.items():
            changed = not np.array_equal(value, found[name][key])
            assert changed == (key == "kernel")


def test_what_does_not_divide_is_skipped_and_said():
    _, log = apply(example(), [Prune("**", pattern="2:4")])
    assert {row.path for row in log.touched()} == {"conv", "hidden", "head"}
    why = {row.path: row.why for row in log.skipped()}["depthwise"]
    assert why == "kernel: 4 does not divide its 1 inputs"


def test_what_is_added_is_not_pruned_nor_are_vectors():
    model = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    model.positions = nnx.Param(jnp.ones((1, 6, 4)))
    model.point = nnx.Conv(4, 4, (1,), rngs=nnx.Rngs(0))  # a kernel of (1, 4, 4)
    small, log = apply(model, [Prune("**", sparsity=0.5)])
    assert {row.path for row in log.touched()} == {"", "point"}
    assert bool((small.positions[...] == 1).all())
    assert int((small.kernel[...] == 0).sum()) == int((small.point.kernel[...] == 0).sum()) == 8


def test_the_layout_of_torchs_lstm_is_not_taken_for_ours():
    model = nnx.Sequential(layers.LSTM(4, 4, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="its inputs are the last axis"):
        apply(model, [Prune("layers/0", pattern="2:4")])
    _, log = apply(model, [Prune("layers/0", sparsity=0.5)])
    assert "(64 of 128)" in log.touched()[0].why


def test_tied_weights_are_pruned_once():
    net = nnx.merge(*nnx.split(example()), copy=True)
    net.again = nnx.Linear(16, 6, rngs=nnx.Rngs(1))
    net.again.kernel = net.head.kernel
    small, log = apply(net, [Prune("**", sparsity=0.5)])
    assert small.again.kernel is small.head.kernel
    assert (np.asarray(small.head.kernel[...]) == 0).sum() == 48
    assert "tied" in next(row.why for row in log.skipped() if row.path in ("head", "again"))


def test_random_depends_on_seed_and_path_alone():
    alone, _ = apply(example(), [Prune("head", sparsity=0.5, method="random")])
    among, _ = apply(example(), [Prune("**", sparsity=0.5, method="random")])
    other, _ = apply(example(), [Prune("head", sparsity=0.5, method="random", seed=1)])
    np.testing.assert_array_equal(kernels(alone)["head"], kernels(among)["head"])
    assert (kernels(alone)["head"] != kernels(other)["head"]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"sparsity in \[0, 1\). Got None"),
        ({"sparsity": 1.0}, r"sparsity in \[0, 1\). Got 1.0"),
        ({"sparsity": -0.1}, r"sparsity in \[0, 1\)"),
        ({"sparsity": float("nan")}, r"sparsity in \[0, 1\)"),
        ({"sparsity": 0.5, "method": "magnitud"}, "Did you mean 'magnitude'"),
        ({"sparsity": 0.5, "scope": "globl"}, "Did you mean 'global'"),
        ({"sparsity": 0.5, "distribution": "erq"}, "Did you mean 'erk'"),
        ({"sparsity": 0.5, "pattern": "unstructred"}, "Did you mean 'unstructured'"),
        ({"sparsity": 0.5, "pattern": (0, 2)}, "two sides of at least 1"),
        ({"pattern": "4:4"}, "n from 1 to m - 1"),
        ({"pattern": "2:4", "sparsity": 0.6}, "2:4 is sparsity 0.5. Got 0.6"),
        ({"pattern": "2:4", "scope": "global"}, "Leave them out"),
        ({"sparsity": 0.5, "scope": "global", "distribution": "erk"}, "leave out"),
        ({"sparsity": 0.5, "scope": "global", "method": "wanda"}, "scope='layer'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Prune("**", **settings)


def test_bad_use():
    net = example()
    with pytest.raises(ValueError, match=r"needs data=.*needs loss="):
        apply(net, [Prune("**", sparsity=0.5, method="taylor")])
    with pytest.raises(ValueError, match="fits no array: head: kernel: 5 does not divide"):
        apply(net, [Prune("head", pattern="2:5")])
    with pytest.raises(ValueError, match="matches no float Param"):
        apply(net, [Prune("bn", sparsity=0.5)])
    with pytest.raises(ValueError, match="holds no batch"):
        apply(net, [Prune("head", sparsity=0.5, method="wanda")], data=[])
    bad = [np.full((1, 5, 5, 4), np.nan, np.float32)]
    with pytest.raises(ValueError, match="scores of head/kernel are not finite"):
        apply(net, [Prune("head", sparsity=0.5, method="snip")], data=bad, loss=squares)


def test_patterns_by_name():
    assert parse("1:2").misfit((3, 5)) == "2 does not divide its 3 inputs"
    assert parse("2x5").misfit((4, 5)) is None
