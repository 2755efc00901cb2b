# SPDX-License-Identifier: Apache-2.0
"""Groups of hand-written functions against what was written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.compress.dimensions import dimensions


class Weights(nnx.Module):
    """Arrays by name, and a function of them and x."""

    def __init__(self, function, **shapes):
        self.function = function
        for name, shape in shapes.items():
            setattr(self, name, nnx.Param(jnp.ones(shape)))

    def __call__(self, x):
        return self.function(x, self)


def found(function, x, **shapes):
    """[{(name, axis): rows of units}] of all groups, in order."""
    result = dimensions(Weights(function, **shapes), jnp.zeros(x))
    groups = [{axis: rows.tolist() for axis, rows in g.members.items()} for g in result.groups]
    return groups, result


def singles(n):
    return [[i] for i in range(n)]


def conv(x, w, **settings):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers, **settings)


def test_a_hidden_layer():
    def f(x, p):
        return jnp.tanh(x @ p.a[...] + p.b[...]) @ p.c[...]

    groups, result = found(f, (2, 3), a=(3, 5), b=(5,), c=(5, 4))
    assert groups == [{("a", 1): singles(5), ("b", 0): singles(5), ("c", 0): singles(5)}]
    assert not result.not_understood
    assert not result.groups[0].averaged
    assert (result.roots["a", 0] == 0).all()
    assert (result.roots["c", 1] == 0).all()


def test_a_residual_stream_ties_what_is_added():
    def f(x, p):
        h = x @ p.a[...]
        h = h + jax.nn.relu(h @ p.b[...]) @ p.c[...]
        return h @ p.d[...]

    groups, _ = found(f, (2, 3), a=(3, 4), b=(4, 6), c=(6, 4), d=(4, 2))
    stream = {(name, axis): singles(4) for name, axis in [("a", 1), ("b", 0), ("c", 1), ("d", 0)]}
    assert groups == [stream, {("b", 1): singles(6), ("c", 0): singles(6)}]


def test_a_concatenation_keeps_its_parts_apart():
    def f(x, p):
        return jnp.concatenate([x @ p.a[...], x @ p.b[...]], -1) @ p.c[...]

    groups, _ = found(f, (2, 3), a=(3, 2), b=(3, 4), c=(6, 5))
    assert groups == [
        {("a", 1): [[0], [1]], ("c", 0): [[0], [1]]},
        {("b", 1): singles(4), ("c", 0): [[2], [3], [4], [5]]},
    ]


def test_flattened_space_gives_every_channel_several_rows():
    def f(x, p):
        return conv(x, p.a[...]).reshape(x.shape[0], -1) @ p.b[...]

    groups, _ = found(f, (2, 2, 2, 3), a=(3, 3, 3, 5), b=(20, 4))
    rows = [[c, c + 5, c + 10, c + 15] for c in range(5)]
    assert groups == [{("a", 3): singles(5), ("b", 0): rows}]


def test_heads_are_removed_whole():
    def f(x, p):
        b, n, _ = x.shape
        q, k, v = ((x @ w[...]).reshape(b, n, 2, 3) for w in (p.q, p.k, p.v))
        weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k))
        y = jnp.einsum("bhnm,bmhd->bnhd", weights, v)
        return y.reshape(b, n, -1) @ p.o[...]

    groups, _ = found(f, (2, 5, 4), q=(4, 6), k=(4, 6), v=(4, 6), o=(6, 4))
    heads = [[0, 1, 2], [3, 4, 5]]
    assert groups == [{("q", 1): heads, ("k", 1): heads, ("v", 1): heads, ("o", 0): heads}]


def test_queries_that_share_a_head_of_keys_go_with_it():
    def f(x, p):
        b, n, _ = x.shape
        q = (x @ p.q[...]).reshape(b, n, 4, 2).reshape(b, n, 2, 2, 2)
        k, v = ((x @ w[...]).reshape(b, n, 2, 2) for w in (p.k, p.v))
        y = jnp.einsum("bngrd,bmgd,bmge->bngre", q, k, v)
        return y.reshape(b * n, 8) @ p.o[...]

    groups, _ = found(f, (2, 5, 4), q=(4, 8), k=(4, 4), v=(4, 4), o=(8, 4))
    wide, narrow = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1], [2, 3]]
    assert groups == [{("q", 1): wide, ("k", 1): narrow, ("v", 1): narrow, ("o", 0): wide}]


@pytest.mark.parametrize("by", ["slices", "split"])
def test_gated_halves_go_together(by):
    def f(x, p):
        y = x @ p.a[...]
        gate, up = jnp.split(y, 2, -1) if by == "split" else (y[:, :4], y[:, 4:])
        return (jax.nn.sigmoid(gate) * up) @ p.b[...]

    groups, _ = found(f, (2, 3), a=(3, 8), b=(4, 3))
    assert groups == [{("a", 1): [[i, i + 4] for i in range(4)], ("b", 0): singles(4)}]


def test_a_depthwise_convolution_ties_its_input_to_its_output():
    def f(x, p):
        y = conv(conv(x, p.a[...]), p.dw[...], feature_group_count=4)
        return conv(y, p.b[...]).mean((1, 2))

    groups, result = found(f, (2, 5, 5, 3), a=(1, 1, 3, 4), dw=(3, 3, 1, 4), b=(1, 1, 4, 2))
    assert groups == [{("a", 3): singles(4), ("dw", 3): singles(4), ("b", 2): singles(4)}]
    assert (result.inputs["dw"] == result.roots["a", 3]).all()


def test_a_depthwise_multiplier_gives_a_channel_several_outputs():
    def f(x, p):
        y = conv(x, p.a[...])
        return conv(conv(y, p.dw[...], feature_group_count=2), p.b[...])

    groups, _ = found(f, (2, 5, 5, 3), a=(1, 1, 3, 2), dw=(3, 3, 1, 6), b=(1, 1, 6, 2))
    rows = [[0, 1, 2], [3, 4, 5]]
    assert groups == [{("a", 3): singles(2), ("dw", 3): rows, ("b", 2): rows}]


def test_few_large_groups_lose_a_channel_each():
    def f(x, p):
        y = conv(conv(x, p.a[...]), p.g[...], feature_group_count=2)
        return conv(y, p.b[...])

    groups, _ = found(f, (2, 5, 5, 3), a=(1, 1, 3, 6), g=(3, 3, 3, 8), b=(1, 1, 8, 2))
    into = {("a", 3): [[0, 3], [1, 4], [2, 5]], ("g", 2): singles(3)}
    out = [[i, i + 4] for i in range(4)]
    assert groups == [into, {("g", 3): out, ("b", 2): out}]


def test_many_small_groups_go_whole():
    def f(x, p):
        y = conv(conv(x, p.a[...]), p.g[...], feature_group_count=3)
        return conv(y, p.b[...])

    groups, _ = found(f, (2, 5, 5, 3), a=(1, 1, 3, 6), g=(3, 3, 2, 6), b=(1, 1, 6, 2))
    pairs = [[0, 1], [2, 3], [4, 5]]
    assert groups == [{("a", 3): pairs, ("g", 3): pairs, ("b", 2): pairs}]


def test_a_shuffle_of_channels_ties_the_same_place_in_every_group():
    def f(x, p):
        y = x @ p.a[...]
        y = y.reshape(-1, 2, 3).swapaxes(1, 2).reshape(-1, 6)
        return y @ p.b[...]

    groups, _ = found(f, (2, 3), a=(3, 6), b=(6, 2))
    rows = [[0, 3], [1, 4], [2, 5]]
    assert groups == [{("a", 1): rows, ("b", 0): [[0, 1], [2, 3], [4, 5]]}]


def test_channels_padded_by_zeros_can_go_and_the_padding_stays():
    def f(x, p):
        y = jnp.pad(x @ p.a[...], ((0, 0), (0, 2)))
        return (y + x @ p.b[...]) @ p.c[...]

    groups, result = found(f, (2, 3), a=(3, 4), b=(3, 6), c=(6, 2))
    assert groups == [{("a", 1): singles(4), ("b", 1): singles(4), ("c", 0): singles(4)}]
    assert (result.roots["b", 1][4:] == 0).all()


def test_an_embedding_loses_features_and_no_tokens():
    def f(x, p):
        return p.table[...][x.astype(jnp.int32)] @ p.b[...]

    groups, result = found(f, (2, 3), table=(7, 4), b=(4, 2))
    assert groups == [{("table", 1): singles(4), ("b", 0): singles(4)}]
    assert (result.roots["table", 0] == 0).all()


def test_a_mean_over_channels_is_told():
    def f(x, p):
        h = x @ p.a[...]
        h = (h - h.mean(-1, keepdims=True)) * p.scale[...]
        return h @ p.b[...]

    groups, result = found(f, (2, 3), a=(3, 4), scale=(4,), b=(4, 2))
    assert [sorted(group) for group in groups] == [[("a", 1), ("b", 0), ("scale", 0)]]
    assert result.groups[0].averaged


def _scan(x, p):
    def body(h, w):
        return h + jnp.tanh(h @ w), h.mean()

    h, _ = jax.lax.scan(body, x @ p.a[...], p.w[...])
    return h @ p.b[...]


def _from_zeros(x, p):
    """An RNN over 5 steps whose state starts as zeros."""

    def body(h, _):
        return jnp.tanh(x @ p.a[...] + h @ p.w[...][0]), None

    h, _ = jax.lax.scan(body, jnp.zeros((2, 4)), None, length=5)
    return h @ p.b[...]


def _while(x, p):
    def body(state):
        i, h = state
        return i + 1, jnp.tanh(h @ p.w[...][0])

    return jax.lax.while_loop(lambda s: s[0] < 3, body, (0, x @ p.a[...]))[1] @ p.b[...]


def _branches(x, p):
    h = x @ p.a[...]
    h = jax.lax.cond(x.sum() > 0, lambda h: h @ p.w[...][0], lambda h: h, h)
    return h @ p.b[...]


def _wrapped(x, p):
    @jax.custom_vjp
    def inner(h, w):
        return h + jax.nn.relu(h @ w)

    inner.defvjp(lambda h, w: (inner(h, w), None), lambda _, g: (g, g))
    return jax.jit(jax.checkpoint(inner))(x @ p.a[...], p.w[...][0]) @ p.b[...]


@pytest.mark.parametrize("f", [_scan, _from_zeros, _while, _branches, _wrapped])
def test_loops_branches_and_wrapped_programs(f):
    groups, result = found(f, (2, 3), a=(3, 4), w=(2, 4, 4), b=(4, 2))
    stream = [("a", 1), ("w", 1), ("w", 2), ("b", 0)]
    assert groups == [dict.fromkeys(stream, singles(4))]
    assert not result.not_understood


def test_an_operation_that_is_not_understood_freezes_and_is_named():
    def f(x, p):
        with jax.named_scope("strange"):
            h = jnp.fft.fft(x @ p.a[...]).real
        return jnp.tanh(h @ p.b[...]) @ p.c[...]

    groups, result = found(f, (2, 3), a=(3, 4), b=(4, 5), c=(5, 2))
    assert groups == [{("b", 1): singles(5), ("c", 0): singles(5)}]
    assert len(result.not_understood) == 1
    assert "fft" in result.not_understood[0]
    assert "strange" in result.not_understood[0]


def test_numbers_in_the_code_fix_their_axis():
    def f(x, p):
        return ((x @ p.a[...]) * np.arange(4.0)) @ p.b[...]

    groups, _ = found(f, (2, 3), a=(3, 4), b=(4, 2))
    assert groups == []
