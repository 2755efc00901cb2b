# SPDX-License-Identifier: Apache-2.0
"""dot_product_attention: every option against loops in NumPy, plainly and block by block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import measure, ops
from efficient_layers.ops import attention_blockwise, attention_spans, attention_whole
from efficient_layers.ops.attention import dot_product_attention

DRAW = np.random.default_rng(0).normal
KEY = jax.random.key(3)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of few queries, strips and chunks of a few more: all loops run at tiny sizes."""
    monkeypatch.setattr(attention_whole, "MOST_KEYS", 0)
    monkeypatch.setattr(attention_blockwise, "BLOCK", 24)
    monkeypatch.setattr(attention_blockwise, "PAIRS", 24)
    monkeypatch.setattr(attention_blockwise, "LEAST_ROWS", 2)
    monkeypatch.setattr(attention_spans, "STRIP", 3)
    monkeypatch.setattr(attention_spans, "CHUNK", 3)
    monkeypatch.setattr(attention_spans, "MOST_STRIPS", 2)


def inputs(b=2, n=11, m=11, h=4, g=2, d=3, e=5, dtype=jnp.float32):
    shapes = ((b, n, h, d), (b, m, g, d), (b, m, g, e))
    return tuple(jnp.asarray(DRAW(size=s), dtype) for s in shapes)


def loops(q, k, v, *, causal=False, window=None, mask=None, bias=None, slopes=None,
          segments=None, query_offset=0, scale=None):  # fmt: skip
    """The definition, a query at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    (b, n, h, d), (m, g) = q.shape, k.shape[1:3]
    offset = np.broadcast_to(query_offset, (b,))
    mask = np.broadcast_to(True if mask is None else mask, (b, h, n, m))
    bias = np.broadcast_to(0 if bias is None else np.asarray(bias, np.float64), (b, h, n, m))
    left, right = (window - 1,) * 2 if isinstance(window, int) else window or (m + n, m + n)
    y = np.zeros((b, n, h, v.shape[-1]))
    for i, head, row in np.ndindex(b, h, n):
        place, group, weights = row + offset[i], head // (h // g), {}
        for j in range(m):
            hidden = (causal and j > place) or j < place - left or j > place + right
            hidden = hidden or not mask[i, head, row, j]
            if hidden or (segments and segments[0][i, row] != segments[1][i, j]):
                continue
            score = q[i, row, head] @ k[i, j, group] * (d**-0.5 if scale is None else scale)
            score += bias[i, head, row, j] - (0 if slopes is None else slopes[head]) * abs(
                place - j
            )
            weights[j] = np.exp(score)
        for j, weight in weights.items():
            y[i, row, head] += weight / sum(weights.values()) * v[i, j, group]
    return y


SEGMENTS = np.repeat([[0, 1, 2]], 2, 0).repeat([4, 5, 2], 1)
MASK = DRAW(size=(2, 4, 11, 11)) > -0.5
SLOPES = np.asarray([0.5, 0.25, 1, 0], np.float32)
BIAS = np.asarray(DRAW(size=(4, 11, 11)), np.float32)
CASES = {
    "plain": {},
    "scale": {"scale": 0.7},
    "causal": {"causal": True},
    "causal, offset": {"causal": True, "query_offset": 2},
    "causal, before the keys": {"causal": True, "query_offset": -4},
    "causal, offsets": {"causal": True, "query_offset": np.asarray([0, 5])},
    "window": {"window": 2},
    "window (2, 0)": {"window": (2, 0)},
    "wide window": {"window": (1, 7), "query_offset": 3},
    "window, causal": {"window": 3, "causal": True},
    "window, beyond the keys": {"window": 2, "query_offset": 6},
    "mask": {"mask": MASK},
    "mask of keys": {"mask": MASK[:, :1, :1], "window": 2},
    "mask of queries, window": {"mask": MASK[0, :, :, :1], "window": 2, "causal": True},
    "bias": {"bias": BIAS},
    "ALiBi": {"slopes": SLOPES, "causal": True},
    "segments": {"segments": (SEGMENTS, SEGMENTS[:, ::-1])},
    "all": {
        "causal": True,
        "window": 4,
        "segments": (SEGMENTS, SEGMENTS),
        "slopes": SLOPES,
        "query_offset": 1,
        "mask": MASK[1, :1],
        "bias": BIAS[:, :1],
    },
}


def arrays(options):
    """NumPy values as arrays of JAX."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, options)


QUICK = ("causal",)
DERIVED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("name", CASES)
def test_reference_is_the_loop(name):
    x, options = inputs(), CASES[name]
    with ops.lowering("reference"):
        y = dot_product_attention(*x, **arrays(options))
    np.testing.assert_allclose(y, loops(*x, **options), atol=2e-6)


@pytest.mark.parametrize("name", DERIVED)
def test_blocks_are_the_loop(name, small_blocks):
    x, options = inputs(), CASES[name]
    y = jax.jit(lambda *x: dot_product_attention(*x, **arrays(options)))(*x)
    np.testing.assert_allclose(y, loops(*x, **options), atol=2e-6)


FEW = [name for name, options in CASES.items() if not {"bias", "slopes"} & set(options)]
FEW = [name if name == "causal" else pytest.param(name, marks=pytest.mark.slow) for name in FEW]


@pytest.fixture
def few_keys(monkeypatch):
    """The form for few keys, its derivative a pair at a time; it must be what runs."""
    ran = []
    attend = attention_blockwise.attend_few
    monkeypatch.setattr(attention_blockwise, "attend_few", lambda *x: ran.append(x) or attend(*x))
    monkeypatch.setattr(attention_whole, "PAIRS", 1)
    yield
    assert ran


@pytest.mark.parametrize("name", FEW)
def test_few_keys_are_the_loop(name, few_keys):
    x, options = inputs(), CASES[name]
    y = jax.jit(lambda *x: dot_product_attention(*x, **arrays(options)))(*x)
    np.testing.assert_allclose(y, loops(*x, **options), atol=2e-6)


@pytest.mark.parametrize("name", FEW)
def test_derivatives_of_few_keys_are_the_references_own(name, few_keys):
    derivatives_are_the_references_own(arrays(CASES[name]))


@pytest.mark.parametrize("name", DERIVED)
def test_derivatives_of_blocks_are_the_references_own(name, small_blocks):
    derivatives_are_the_references_own(arrays(CASES[name]))


def derivatives_are_the_references_own(options):
    x = inputs()
    tangents = tuple(jnp.asarray(DRAW(size=leaf.shape), jnp.float32) for leaf in x)

    def both_modes(lowering):
        def run(*x):
            with ops.lowering(lowering):
                return dot_product_attention(*x, **options)

        def everything(*x):
            y, pull = jax.vjp(run, *x)
            return y, pull(jnp.cos(y)), jax.jvp(run, x, tangents)[1]

        return jax.jit(everything)(*x)

    pairs = (jax.tree.leaves(both_modes(name)) for name in ("cpu", "reference"))
    for got, expected in zip(*pairs, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.fast
@pytest.mark.parametrize("shape", [{"n": 1}, {"m": 1}, {"n": 7, "m": 13}, {"h": 2}, {"g": 1}])
def test_shapes(shape, small_blocks):
    x = inputs(**shape)
    np.testing.assert_allclose(dot_product_attention(*x), loops(*x), atol=2e-6)
    moved = dot_product_attention(*x, causal=True, query_offset=2)
    np.testing.assert_allclose(moved, loops(*x, causal=True, query_offset=2), atol=2e-6)


@pytest.mark.fast
def test_any_number_of_batch_axes():
    q, k, v = inputs(b=6)
    mask = jnp.asarray(DRAW(size=(3, 1, 1, 11)) > 0)
    split = (x.reshape(2, 3, *x.shape[1:]) for x in (q, k, v))
    y = dot_product_attention(*split, mask=mask)
    expected = loops(q, k, v, mask=np.tile(mask, (2, 1, 1, 1)))
    np.testing.assert_allclose(y.reshape(expected.shape), expected, atol=2e-6)
    alone = dot_product_attention(q[0], k[0], v[0])
    np.testing.assert_allclose(alone, loops(q, k, v)[0], atol=2e-6)
    for lowering in ("cpu", "reference"):
        with ops.lowering(lowering):
            assert dot_product_attention(q[:0], k[:0], v[:0]).shape == (0, 11, 4, 5)


@pytest.mark.slow
def test_bias_and_slopes_have_gradients(small_blocks):
    x, bias = inputs(), jnp.asarray(BIAS)

    def loss(lowering, bias, slopes):
        with ops.lowering(lowering):
            y = dot_product_attention(*x, bias=bias, slopes=slopes, causal=True)
        return (y**3).sum()

    got, expected = (
        jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)(name, bias, jnp.asarray(SLOPES))
        for name in ("cpu", "reference")
    )
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_hessian_vmap_remat_and_scan(small_blocks):
    q, k, v = inputs(b=1, n=5, m=5, h=2, g=1, d=2, e=2)

    def loss(k, q, lowering):
        with ops.lowering(lowering):
            return jnp.sin(dot_product_attention(q, k, v, causal=True)).sum()

    hessians = [jax.jit(jax.hessian(loss), static_argnums=2)(k, q, n) for n in ("cpu", "reference")]
    np.testing.assert_allclose(*hessians, atol=5e-5)
    many = jnp.stack([q, -q, 2 * q])
    one_by_one = jnp.stack([jax.grad(loss)(k, x, "cpu") for x in many])
    at_once = jax.vmap(jax.grad(loss), (None, 0, None))(k, many, "cpu")
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-6)
    again = jax.checkpoint(loss, static_argnums=2)
    scanned = jax.lax.scan(lambda c, x: (c, jax.grad(again)(k, x, "cpu")), 0, many)[1]
    np.testing.assert_allclose(scanned, one_by_one, atol=1e-6)


def test_gradient_is_the_finite_difference(small_blocks):
    with jax.enable_x64(True):
        x = inputs(b=1, n=4, m=5, h=2, dtype=jnp.float64)
        f = lambda *x: jnp.sin(dot_product_attention(*x, window=2)).sum()  # noqa: E731
        step = tuple(DRAW(size=leaf.shape) for leaf in x)
        slope = sum((g * s).sum() for g, s in zip(jax.grad(f, (0, 1, 2))(*x), step, strict=True))
        ahead, behind = (
            f(*(a + c * s for a, s in zip(x, step, strict=True))) for c in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.fast
@pytest.mark.parametrize("lowering", ["cpu", "reference", "gpu"])
def test_nothing_of_the_future_and_zeros_for_the_blind(lowering, small_blocks):
    x = inputs(b=1)

    def outputs(*x, **options):
        with ops.lowering(lowering):
            return dot_product_attention(*x, **options)

    reach = jax.jit(jax.jacrev(lambda *x: outputs(*x, causal=True).sum((0, 2, 3)), (1, 2)))(*x)
    strength = sum(np.abs(leaf[..., :3]).sum((1, 3, 4)) for leaf in reach)
    np.testing.assert_array_equal(np.triu(strength, 1), 0)
    assert np.all(np.diag(strength) > 0)
    blind = jnp.arange(11)[:, None] > 3
    y, pull = jax.vjp(lambda *x: outputs(*x, mask=blind), *x)
    np.testing.assert_array_equal(y[:, :4], 0)
    for gradient in pull(jnp.ones_like(y)):
        assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0][:, :4], 0)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_summed_in_float32(dtype):
    x = inputs(dtype=dtype)
    for lowering in ("cpu", "reference"):
        with ops.lowering(lowering):
            y = dot_product_attention(*x, causal=True)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.astype(jnp.float32), loops(*x, causal=True), 2e-2, 2e-2)


def test_large_scores_do_not_overflow():
    q, k, v = inputs()
    y = dot_product_attention(1e3 * q, 1e3 * k, v)
    first = jnp.einsum("bnhd,bmhd->bhnm", q, k.repeat(2, 2)).argmax(-1)  # a softmax of one weight
    expected = np.take_along_axis(np.asarray(v).repeat(2, 2).swapaxes(1, 2), first[..., None], 2)
    np.testing.assert_allclose(y, expected.swapaxes(1, 2), atol=1e-5)


@pytest.mark.slow
def test_dropout_drops_a_share_and_the_same_for_all_lowerings(small_blocks):
    n = 40
    q, k = jnp.zeros((1, n, 2, 1)), jnp.zeros((1, n, 2, 1))
    v = jnp.eye(n)[None, :, None].repeat(2, 2)  # the result is the matrix of weights

    def weights(lowering, key):
        with ops.lowering(lowering):
            return dot_product_attention(q, k, v, dropout_rate=0.3, dropout_key=key)

    kept = np.asarray(weights("cpu", KEY)) * n
    np.testing.assert_allclose(kept, weights("reference", KEY) * n, rtol=1e-6)
    assert set(np.unique(kept.round(4))) == {0, np.float32(1 / 0.7).round(4)}
    assert abs((kept > 0).mean() - 0.7) < 0.03
    assert np.any(kept != weights("cpu", jax.random.key(4)) * n)
    similar = np.corrcoef(kept[0].transpose(1, 0, 2).reshape(2 * n, n) > 0)
    assert np.abs(similar - np.eye(2 * n)).max() < 0.75  # no two queries drop alike


def test_macs_of_the_reference():
    q, k, v = inputs(b=1, n=6, m=8, h=4, g=2, d=5, e=5)
    cost = measure.cost(lambda x: dot_product_attention(*x, causal=True), ((q, k, v),))
    assert cost.macs == 2 * 4 * 6 * 8 * 5


@pytest.mark.fast
def test_bad_input_is_named():
    q, k, v = inputs()
    attend = dot_product_attention
    for expected, call in {
        r"divide query heads. Got 3 query and 2": lambda: attend(q[:, :, :3], k, v),
        r"Batch axes.*Got query \(2, 11": lambda: attend(q, k, v[:, :4]),
        r"same d > 0": lambda: attend(q[..., :2], k, v),
        r"Expected \(\*b, n, h, d\)": lambda: attend(q[0, 0], k, v),
        r"mask must broadcast.*\(2, 4, 11, 11\).*Got \(3, 11\)": lambda: attend(
            q, k, v, mask=jnp.ones((3, 11), bool)
        ),
        r"bias must broadcast": lambda: attend(q, k, v, bias=jnp.ones((5, 1, 1))),
        r"slopes must have shape \(h,\) = \(4,\). Got \(2,\)": lambda: attend(
            q, k, v, slopes=jnp.ones(2)
        ),
        r"window must be at least 1.*Got 0": lambda: attend(q, k, v, window=0),
        r"must not be negative. Got \(-1, 2\)": lambda: attend(q, k, v, window=(-1, 2)),
        r"\[0, 1\). Got 1": lambda: attend(q, k, v, dropout_rate=1.0, dropout_key=KEY),
        r"needs dropout_key": lambda: attend(q, k, v, dropout_rate=0.1),
        r"segments must have shapes": lambda: attend(
            q, k, v, segments=(jnp.zeros((2, 3), int), jnp.zeros((2, 11), int))
        ),
        r"query_offset must be a number or \(2,\)": lambda: attend(
            q, k, v, causal=True, query_offset=jnp.zeros(3, int)
        ),
    }.items():
        with pytest.raises(ValueError, match=expected):
            call()
    for expected, call in {
        r"mask must be boolean": lambda: attend(q, k, v, mask=jnp.ones((11, 11))),
        r"floats. Got query of int32": lambda: attend(q.astype(jnp.int32), k, v),
        r"window expects an int or \(left, right\)": lambda: attend(q, k, v, window=1.5),
        r"integer. Got float32": lambda: attend(q, k, v, query_offset=jnp.float32(1)),
        r"segments must be integers": lambda: attend(
            q, k, v, segments=(jnp.zeros((2, 11)), jnp.zeros((2, 11)))
        ),
        r"segments expects a pair": lambda: attend(q, k, v, segments=3),
    }.items():
        with pytest.raises(TypeError, match=expected):
            call()
