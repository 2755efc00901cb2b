# SPDX-License-Identifier: Apache-2.0
"""LowRank of convolutions against NumPy: errors, choices of ranks, budgets, whitening, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, measure, models
from efficient_layers.compress.moments import patches
from efficient_layers.compress.rank_choice import Ranks
from efficient_layers.measure.latency import caller
from efficient_layers.ops import kernel_factors
from tests.compress.test_apply import logits, made, reloaded

DRAW = np.random.default_rng(0)
# A kernel with small tails along every axis.
KERNEL = np.einsum(
    "ya,xb,ic,od,abcd->yxio",
    *(np.linalg.qr(DRAW.normal(size=(n, n)))[0] for n in (3, 3, 6, 8)),
    DRAW.normal(size=(3, 3, 6, 8)) * np.exp(-0.7 * np.indices((3, 3, 6, 8)).sum(0)),
)
X = np.asarray(jax.random.normal(jax.random.key(0), (2, 9, 8, 6)))
T = "tucker2"
CLASSES = {
    "svd": layers.FactorizedConv,
    "spatial": layers.SpatialSeparableConv,
    "tucker2": layers.TuckerConv,
    "cp": layers.CPConv,
}


def one(conv=layers.Conv, **settings) -> nnx.Module:
    new = conv(6, 8, (3, 3), **settings, rngs=nnx.Rngs(0))
    new.kernel.set_value(jnp.asarray(KERNEL, jnp.float32))
    if new.bias is not None:
        new.bias.set_value(jnp.arange(8.0))
    return nnx.Sequential(new)


def kernel_of(layer: nnx.Module) -> np.ndarray:
    """What the chain does to a unit in the middle of zeros, mirrored: its one kernel."""
    small = nnx.merge(*nnx.split(layer), copy=True)
    last = getattr(small, small.parts[-1])
    last.bias = None
    last.use_bias = False
    units = jnp.eye(6)[:, None, None] * jnp.zeros((1, 5, 5, 1)).at[:, 2, 2].set(1)
    return np.asarray(small(units), np.float64)[:, 1:4, 1:4][:, ::-1, ::-1].transpose(1, 2, 0, 3)


def tail(matrix: np.ndarray, rank: int) -> float:
    return float(np.sqrt((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum()))


def projected(kernel: np.ndarray, ranks: tuple[int, int], sweeps: int = 0) -> np.ndarray:
    """Tucker-2 by NumPy's SVD of unfoldings: HOSVD, then sweeps of HOOI."""

    def basis(kernel, axis, rank):
        unfolded = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
        return np.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]

    inner, outer = basis(kernel, 2, ranks[0]), basis(kernel, 3, ranks[1])
    for _ in range(sweeps):
        inner = basis(np.einsum("yxio,os->yxis", kernel, outer), 2, ranks[0])
        outer = basis(np.einsum("yxio,ir->yxro", kernel, inner), 3, ranks[1])
    return np.einsum("yxio,ir,os,jr,ps->yxjp", kernel, inner, outer, inner, outer)


def test_svd_and_spatial_have_the_error_of_numpys_tail():
    for method, matrix, rank in (
        ("svd", KERNEL.reshape(54, 8), 3),
        ("spatial", KERNEL.transpose(0, 2, 1, 3).reshape(18, 24), 4),
    ):
        small, log = compress.apply(one(), compress.LowRank("**", rank=rank, method=method))
        layer = small.layers[0]
        assert type(layer) is CLASSES[method]
        assert layer.rank == rank
        error = np.linalg.norm(kernel_of(layer) - KERNEL)
        np.testing.assert_allclose(error, tail(matrix, rank), rtol=1e-3)
        kept = 1 - (error / np.linalg.norm(KERNEL)) ** 2
        limit = min(matrix.shape)
        assert log.rows[0].why == (
            f"{method}, rank {rank} of {limit} keeps {kept:.1%} of the energy"
        )


def test_tucker2_is_numpys_hosvd_and_close_to_hooi():
    small, log = compress.apply(one(), compress.LowRank("**", rank=3, method="tucker2"))
    layer = small.layers[0]
    assert layer.ranks == (3, 3)
    got = kernel_of(layer)
    np.testing.assert_allclose(got, projected(KERNEL, (3, 3)), atol=1e-5)
    hosvd = np.linalg.norm(got - KERNEL)
    hooi = np.linalg.norm(projected(KERNEL, (3, 3), sweeps=50) - KERNEL)
    assert hooi <= hosvd * (1 + 1e-5) <= 1.03 * hooi
    assert "tucker2, ranks (3, 3) of (6, 8) keeps" in log.rows[0].why


def test_cp_finds_planted_terms():
    factors = [DRAW.normal(size=(n, 3)) for n in (3, 3, 6, 8)]
    model = one()
    kernel = np.einsum("yr,xr,ir,or->yxio", *factors)
    model.layers[0].kernel.set_value(jnp.asarray(kernel, jnp.float32))
    small, log = compress.apply(model, compress.LowRank("**", rank=3, method="cp"))
    np.testing.assert_allclose(kernel_of(small.layers[0]), kernel, atol=1e-3)
    assert "cp, rank 3 of 54 keeps 100.0%" in log.rows[0].why
    small, _ = compress.apply(model, compress.LowRank("**", energy=0.999, method="cp"))
    assert 3 <= small.layers[0].rank <= 6  # the next rank that is tried


@pytest.mark.parametrize("method", ["svd", "spatial", "tucker2"])
def test_energy_is_what_the_factors_keep(method):
    options = Ranks(method, KERNEL)
    factors = {
        "svd": kernel_factors.svd_factors,
        "spatial": kernel_factors.spatial_factors,
        "tucker2": kernel_factors.tucker2_factors,
    }[method]
    spec = {"svd": "yxir,aaro->yxio", "spatial": "ycir,cxro->yxio", "tucker2": ""}[method]
    for index in range(0, len(options.ranks), 3):
        ranks = tuple(map(int, options.ranks[index]))
        parts = factors(KERNEL, ranks if len(ranks) == 2 else ranks[0])
        if method == "tucker2":
            fitted = np.einsum("abir,yxrs,abso->yxio", *parts)
        else:
            fitted = np.einsum(spec, *parts)
        kept = 1 - np.square(fitted - KERNEL).sum() / np.square(KERNEL).sum()
        np.testing.assert_allclose(options.kept[index], kept, atol=1e-9)
        assert options.weights[index] == sum(part.size for part in parts)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_the_cheapest_ranks_of_an_energy_and_the_best_of_a_share(strides):
    """Against a search over all pairs of ranks, the energy of each by projection."""
    macs, weights, kept = [], [], []
    for r, s in itertools.product(range(1, 7), range(1, 9)):
        energy = np.square(projected(KERNEL, (r, s))).sum() / np.square(KERNEL).sum()
        kept.append(energy)
        weights.append(6 * r + 9 * r * s + 8 * s)
        macs.append(6 * r * strides[0] * strides[1] + 9 * r * s + 8 * s)
    macs, weights, kept = map(np.array, (macs, weights, kept))
    small, _ = compress.apply(one(strides=strides), compress.LowRank("**", energy=0.9, method=T))
    best = np.argmin(np.where(kept >= 0.9, macs, np.inf))
    assert small.layers[0].ranks == (best // 8 + 1, best % 8 + 1)
    small, log = compress.apply(one(strides=strides), compress.LowRank("**", params=0.4, method=T))
    best = np.argmax(np.where(weights <= 0.4 * 432, kept, 0))
    assert small.layers[0].ranks == (best // 8 + 1, best % 8 + 1)
    assert f"keeps {kept[best]:.1%}" in log.rows[0].why


def test_defaults():
    small, _ = compress.apply(one(), compress.LowRank("**", rank=2))
    assert isinstance(small.layers[0], layers.SpatialSeparableConv)
    small, _ = compress.apply(one(), compress.LowRank("**", rank=2, whiten=True), data=[X])
    assert isinstance(small.layers[0], layers.FactorizedConv)


class Kinds(nnx.Module):
    """Convolutions with every setting that has to be kept."""

    def __init__(self, rngs: nnx.Rngs):
        self.nodes = nnx.List(
            [
                layers.Conv(6, 8, (3, 3), strides=2, padding="SAME", rngs=rngs),
                nnx.Conv(8, 8, (3, 3), padding=((2, 1), (0, 2)), use_bias=False, rngs=rngs),
                nnx.Conv(8, 8, (3, 3), padding=1, kernel_dilation=(1, 2), rngs=rngs),
                layers.Conv(8, 8, (1, 1), strides=(2, 1), rngs=rngs),
                layers.Conv(8, 8, (3, 1), padding="CIRCULAR", param_dtype=jnp.bfloat16, rngs=rngs),
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for node in self.nodes:
            x = jnp.tanh(node(x))
        return x


@pytest.mark.parametrize("method", list(CLASSES))
def test_settings_are_kept_and_edits_rebuild(method):
    def base():
        return made(Kinds)

    step = compress.LowRank("nodes/*", rank=2, method=method)
    small, log = compress.apply(base(), step)
    assert len(log.touched()) == 5, str(log)
    assert type(small.nodes[0]) is CLASSES[method]
    assert type(small.nodes[3]) is layers.FactorizedConv
    again = reloaded(base, small, log.edits)
    np.testing.assert_array_equal(logits(again, X), logits(small, X))
    assert logits(small, X).shape == logits(base(), X).shape


class Left(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.depthwise = layers.DepthwiseConv(6, 6, (3, 3), rngs=rngs)
        self.each = layers.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.grouped = nnx.Conv(6, 6, (3, 3), feature_group_count=2, rngs=rngs)
        self.line = nnx.Conv(6, 6, (3,), rngs=rngs)
        self.transposed = nnx.Conv(6, 6, (3, 3), input_dilation=(2, 2), rngs=rngs)
        self.scaled = layers.StandardizedConv(6, 6, (3, 3), rngs=rngs)


def test_what_is_left_alone_and_why():
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Left(nnx.Rngs(0))))
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    _, log = compress.apply(nnx.merge(graphdef, blank), compress.LowRank("**", rank=1))
    assert {row.path: row.why for row in log.skipped()} == {
        "depthwise": "LowRank takes no DepthwiseConv",
        "each": "depthwise",
        "grouped": "2 groups",
        "line": "a kernel of (3, 6, 6), not of two dimensions",
        "transposed": "a convolution with a mask or a dilated input",
        "scaled": "LowRank takes no StandardizedConv",
    }


def why(model: nnx.Module, **settings) -> str:
    return compress.apply(model, compress.LowRank("**", **settings))[1].rows[0].why


def test_refuses_ranks_that_grow_the_layer():
    whole = "weights in place of 432"
    assert (
        why(one(), rank=7, method="svd") == f"rank 7 would take 434 {whole}: it pays below rank 7"
    )
    assert why(one(), rank=8, method="tucker2") == f"ranks (6, 8) would take 532 {whole}"
    assert why(one(), rank=19, method="spatial") == "rank 19 is outside of 1 to 18 for 3x3x6x8"
    strided = why(one(strides=4), rank=4, method="tucker2")
    assert strided == "ranks (4, 4) would take 560 MACs for each position in place of 432"
    below = "it pays below rank 11"
    assert why(one(), energy=1.0) == f"rank 18 would take 756 {whole}: {below}"
    assert why(one(), params=0.01) == "rank 1 already has more than 1.0% of the weights"


class Net(nnx.Module):
    """Two convolutions whose tails differ, and a head."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = layers.Conv(6, 8, (3, 3), rngs=rngs)
        self.second = layers.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(16, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(16, 5, rngs=rngs)
        self.first.kernel.set_value(jnp.asarray(KERNEL, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.second(jax.nn.relu(self.first(x))))
        return self.head(jax.nn.relu(x).mean((1, 2)))


def lost(small: nnx.Module, net: nnx.Module) -> float:
    """The sum of the shares of energy that layers lost, by the gap of their kernels."""
    total = 0.0
    for name in ("first", "second", "head"):
        after, before = getattr(small, name), getattr(net, name)
        if type(after) is type(before):
            continue
        whole = np.asarray(before.kernel[...], np.float64)
        if isinstance(before, nnx.Linear):
            kernel = np.asarray(after.u[...] @ after.v[...])
        else:
            parts = [np.asarray(getattr(after, p).kernel[...]) for p in after.parts]
            spec = {
                layers.FactorizedConv: "yxir,abro->yxio",
                layers.SpatialSeparableConv: "yair,bxro->yxio",
                layers.TuckerConv: "abir,yxrs,cdso->yxio",
            }[type(after)]
            kernel = np.einsum(spec, *parts)
        total += np.square(kernel - whole).sum() / np.square(whole).sum()
    return total


def test_a_budget_of_macs_is_met_with_less_lost_than_by_one_energy():
    net = made(Net)
    before = measure.cost(net, X).macs
    small, log = compress.apply(net, compress.LowRank("**", macs=0.5), example=X)
    assert 0.45 * before < log.macs_after <= 0.5 * before
    energies = np.linspace(0.3, 0.95, 8)
    evenly = [
        compress.apply(net, compress.LowRank("**", energy=float(e)), example=X) for e in energies
    ]
    rivals = [lost(model, net) for model, log in evenly if log.macs_after <= 0.5 * before]
    assert lost(small, net) <= min(rivals) + 1e-6
    small, log = compress.apply(net, compress.LowRank("**", macs=0.9 * before), example=X)
    assert log.macs_after <= 0.9 * before
    assert "whole: other layers lose less for the MACs they save, or it is not" in str(log)
    _, log = compress.apply(net, compress.LowRank("**", macs=2 * before), example=X)
    assert not log.touched()
    with pytest.raises(ValueError, match=r"macs cannot fall from .* best that can .* at rank 1"):
        compress.apply(net, compress.LowRank("**", macs=0.01), example=X)


def test_whitening_is_the_optimum_in_the_outputs():
    """|X W - X W'|^2 has the tail of the singular values of X W; plain SVD loses more."""
    x = jnp.asarray(X * np.logspace(0, -2, 6), jnp.float32)
    for model, rows in (
        (one(), np.asarray(patches(one().layers[0], x), np.float64).reshape(-1, 54)),
        (nnx.Sequential(nnx.Linear(6, 8, rngs=nnx.Rngs(0))), np.float64(x).reshape(-1, 6)),
    ):
        layer = model.layers[0]
        w = np.asarray(layer.kernel[...], np.float64).reshape(rows.shape[1], -1)
        y = np.asarray(model(x))
        errors = {}
        for whiten in (True, False):
            step = compress.LowRank("**", rank=2, method="svd", whiten=whiten)
            small, log = compress.apply(model, step, data=[x[:1], x[1:]])
            errors[whiten] = np.linalg.norm(small(x) - y)
        np.testing.assert_allclose(errors[True], tail(rows @ w, 2), rtol=1e-3)
        assert errors[True] < 0.9 * errors[False]
        kept = 1 - (tail(rows @ w, 2) / np.linalg.norm(rows @ w)) ** 2
        _, log = compress.apply(model, compress.LowRank("**", energy=0.9, whiten=True), data=[x])
        assert "of the outputs' energy" in log.rows[0].why
        assert kept > 0.5


def test_whitening_with_inputs_that_are_never_there():
    """ReLU leaves channels at 0: their rows are free, and nothing becomes infinite."""
    x = jnp.asarray(X).at[..., 2:].set(0)
    small, _ = compress.apply(one(), compress.LowRank("**", rank=3, whiten=True), data=[x])
    layer = small.layers[0]
    assert np.isfinite(layer.reduce.kernel[...]).all()
    assert np.abs(layer.reduce.kernel[...]).max() < 1e2
    small, _ = compress.apply(one(), compress.LowRank("**", rank=3, whiten=True), data=[0 * x])
    np.testing.assert_allclose(small(0 * x), one()(0 * x), atol=1e-6)


def test_whitening_needs_calls():
    class Idle(nnx.Module):
        def __init__(self):
            self.used = nnx.Linear(6, 6, rngs=nnx.Rngs(0))
            self.idle = nnx.Linear(6, 6, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.used(x)

    step = compress.LowRank("*", rank=2, whiten=True)
    _, log = compress.apply(Idle(), step, data=[X])
    assert {row.path: row.why for row in log.skipped()} == {"idle": "not called on data"}
    with pytest.raises(ValueError, match="needs data="):
        compress.apply(Idle(), step)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 2, "macs": 0.5},
        {"latency_ms": 0},
        {"energy": 1.1},
        {"rank": 2.5},
        {"rank": 2, "method": "tucker"},
        {"rank": 2, "whiten": True, "method": "cp"},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=r"LowRank (expects|whitens)"):
        compress.LowRank("**", **settings)


def test_removed_then_low_rank_then_integers():
    net = made(Net)
    steps = [
        compress.RemoveChannels("**", ratio=0.25),
        compress.LowRank("*", rank=2),
        compress.FoldBatchNorm(),
        compress.Quantize("**", activations="static", keep_ends=False),
    ]
    small, log = compress.apply(net, steps, example=X, data=[X])
    ints = [m for _, m in models.paths.modules(small) if isinstance(m, layers.IntConv)]
    assert len(ints) >= 4
    assert not any(isinstance(m, nnx.Conv) for _, m in models.paths.modules(small))

    def base():
        return made(Net)

    np.testing.assert_array_equal(logits(reloaded(base, small, log.edits), X), logits(small, X))


def test_quantize_takes_the_parts_of_a_named_low_rank_convolution():
    net = made(Net)
    steps = [compress.LowRank("first", rank=2, method="svd"), compress.Quantize("first", bits=8)]
    small, _ = compress.apply(net, steps)
    assert isinstance(small.first.reduce, layers.IntConv)
    assert isinstance(small.first.expand, layers.IntConv)
    np.testing.assert_allclose(small(X), compress.apply(net, steps[:1])[0](X), rtol=0.05, atol=0.02)


def test_channels_are_removed_from_low_rank_convolutions():
    low, _ = compress.apply(made(Net), compress.LowRank("*", rank=4, method="tucker2"))
    small, log = compress.apply(low, compress.RemoveChannels("**", ratio=0.5), example=X)
    assert small.first.ranks == (2, 2)
    assert log.macs_after < 0.5 * log.macs_before


@pytest.mark.slow
def test_a_budget_of_measured_latency():
    model = nnx.Sequential(
        nnx.Linear(768, 768, rngs=nnx.Rngs(0)), nnx.Linear(768, 768, rngs=nnx.Rngs(1))
    )
    x = jnp.ones((256, 768))
    small, log = compress.apply(model, compress.LowRank("**", latency_ms=0.5), example=x)
    assert log.macs_after < 0.8 * log.macs_before
    programs = {name: measure.compiled_view(m, x) for name, m in (("a", model), ("b", small))}
    times = measure.alternate({name: caller(program) for name, program in programs.items()})
    assert times["b"].median_ms < 0.75 * times["a"].median_ms
    with pytest.raises(ValueError, match=r"latency_ms cannot fall"):
        compress.apply(model, compress.LowRank("**", latency_ms=1e-6), example=x)


@pytest.mark.slow
def test_attention_of_a_bert_is_whitened():
    sizes = {"features": 16, "depth": 2, "num_heads": 2, "vocabulary": 50, "max_length": 16}
    model = models.create("bert", **sizes, num_classes=3, rngs=nnx.Rngs(0))
    model.eval()
    tokens = np.random.default_rng(0).integers(50, size=(8, 12)).astype(np.int32)
    errors = []
    for whiten in (True, False):
        step = compress.LowRank("**/attention/**", rank=4, whiten=whiten)
        small, log = compress.apply(model, step, data=[tokens])
        assert len(log.touched()) == 8, str(log)
        errors.append(np.linalg.norm(logits(small, tokens) - logits(model, tokens)))
    assert errors[0] < errors[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "shape"),
    [("mobilenet_v2", "digits", (2, 8, 8, 1)), ("resnet", "cifar20", (2, 16, 16, 3))],
)
def test_models_of_the_library(name, variant, shape):
    def base():
        return models.create(name, variant=variant, num_classes=10, rngs=nnx.Rngs(0))

    model, x = base(), np.ones(shape, np.float32)
    small, log = compress.apply(model, compress.LowRank("**", macs=0.7), example=x)
    assert 0.68 * log.macs_before < log.macs_after <= 0.7 * log.macs_before
    again = reloaded(base, small, log.edits)
    small.eval()
    again.eval()
    np.testing.assert_array_equal(logits(again, x), logits(small, x))
