# SPDX-License-Identifier: Apache-2.0
"""Cluster: layers of each kind, edits that rebuild, bytes, zeros of pruning, training, refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficient_layers import layers, train
from efficient_layers.compress import Cluster, Prune, Quantize, apply
from efficient_layers.ops.kmeans import kmeans, nearest
from tests.compress.test_apply import logits, made, reloaded, same

X = jax.random.randint(jax.random.key(1), (2, 8, 8), 0, 16)


class Net(nnx.Module):
    """Tokens on a grid: an embedding, convolutions of three kinds, a head."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(16, 8, rngs=rngs)
        self.conv = nnx.Conv(8, 16, (3, 3), rngs=rngs)
        self.ours = layers.Conv(16, 16, (1, 1), use_bias=False, rngs=rngs)
        self.depthwise = layers.DepthwiseConv(16, 3, strides=2, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.head = nnx.Linear(16, 6, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(self.embed(x))
        x = jax.nn.relu(self.norm(self.depthwise(self.ours(x))))
        return self.head(x.mean((1, 2)))


def test_every_kind_of_layer_and_the_way_back():
    model = made(Net)
    small, log = apply(model, [Cluster("**", bits=3)], example=X)
    kinds = {
        "embed": layers.ClusteredEmbedding,
        "conv": layers.ClusteredConv,
        "ours": layers.ClusteredConv,
        "depthwise": layers.ClusteredConv,
        "norm": nnx.LayerNorm,
        "head": layers.ClusteredLinear,
    }
    assert {name: type(getattr(small, name)) for name in kinds} == kinds
    kernel = np.asarray(model.conv.kernel[...], np.float64)
    centroids = kmeans(kernel, np.linspace(kernel.min(), kernel.max(), 8))
    got = small.conv._picked(small.conv.codebook[...], small.conv.codes[...])
    np.testing.assert_allclose(got, centroids[nearest(kernel, centroids)], rtol=1e-6)
    np.testing.assert_array_equal(small.conv.bias[...], model.conv.bias[...])
    again = reloaded(lambda: Net(nnx.Rngs(0)), small, log.edits)
    np.testing.assert_array_equal(logits(again, X), logits(small, X))
    same(model, made(Net))


def test_bytes_and_params():
    _, log = apply(made(Net), [Cluster("head", bits=2, groups=2)])
    (row,) = log.rows
    assert row.before.params == 16 * 6 + 6
    assert row.after.params == 16 * 6 + 6 + 2 * 4  # the codebook trains, so it counts
    assert row.before.bytes == 4 * (16 * 6 + 6)
    assert row.after.bytes == 16 * 2 + 4 * (2 * 4 + 6)  # 6 codes of 2 bits are 2 bytes
    assert "2 bits, 2 codebooks, squared error" in row.why


def test_zeros_of_pruning_stay_and_few_bits_share_the_rest():
    pruned, _ = apply(made(Net), [Prune(path="**", sparsity=0.6)])
    small, log = apply(pruned, [Cluster("**", bits=3)])
    for name in ("conv", "ours", "head"):
        layer, kernel = getattr(small, name), getattr(pruned, name).kernel[...]
        weight = layer._picked(layer.codebook[...], layer.codes[...])
        np.testing.assert_array_equal(weight == 0, kernel == 0)
        assert layer.codebook.shape == (7,)
    assert "zeros kept" in str(log)
    small, _ = apply(pruned, [Cluster("head", bits=3, keep_zeros=False)])
    assert small.head.codebook.shape == (8,)


def test_more_bits_and_codebooks_for_channels_of_different_size_err_less():
    model = made(Net)
    model.conv.kernel.set_value(model.conv.kernel[...] * jnp.repeat(2.0 ** jnp.arange(4), 4))
    kernel = np.asarray(model.conv.kernel[...], np.float64)

    def error(**settings):
        layer = apply(model, [Cluster("conv", **settings)])[0].conv
        return np.square(layer._picked(layer.codebook[...], layer.codes[...]) - kernel).sum()

    errors = [error(bits=bits) for bits in (2, 3, 4, 5)]
    assert all(less < 0.5 * more for more, less in itertools.pairwise(errors))
    assert error(bits=3, groups=4) < 0.7 * errors[1]
    assert error(bits=3, start="k-means++") < 1.5 * errors[1]


def test_training_tunes_the_centroids_in_the_ordinary_loop():
    small, _ = apply(made(Net), [Cluster("**", bits=3)])

    def objective(model, batch, rngs):
        return ((model(batch["x"]) - batch["y"]) ** 2).mean(), {}

    graphdef, params, rest = train.split(small)
    assert {"conv/codebook", "embed/codebook", "head/codebook"} <= set(params)
    assert all(not jnp.issubdtype(v.dtype, jnp.integer) for v in params.values())
    tx = optax.adam(0.01)
    step = jax.jit(train.step(objective, tx, graphdef, guard=train.Guard("off")))
    state = train.TrainState.create(params, rest, tx)
    batch = {"x": X, "y": jnp.ones((2, 6))}
    losses = []
    for _ in range(5):
        state, metrics = step(state, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_array_equal(state.rest["conv/codes"], rest["conv/codes"])


def test_what_is_skipped_says_why():
    model = made(Net)
    model.circular = nnx.Conv(8, 8, (3,), padding="CIRCULAR", rngs=nnx.Rngs(0))
    model.stacked = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    model.stacked.kernel = nnx.Param(jnp.ones((3, 4, 4)))
    _, log = apply(model, [Cluster("**", bits=8, groups=4)])
    why = {row.path: row.why for row in log.skipped()}
    assert "zero padding" in why["circular"]
    assert "stacked: (3, 4, 4)" in why["stacked"]
    assert why["norm"] == "Cluster takes no LayerNorm"
    _, log = apply(model, [Cluster("head", bits=8)])
    assert "would take 1,120 bytes in place of 384" in log.skipped()[0].why
    _, log = apply(model, [Cluster("head", groups=4)])
    assert "groups that divide its 6 channels. Got 4" in log.skipped()[0].why
    _, log = apply(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), [Cluster("**")])
    assert "the model itself" in log.skipped()[0].why


def test_what_comes_after_leaves_codes_alone():
    small, _ = apply(made(Net), [Cluster("**", bits=4)])
    again, log = apply(small, [Quantize("**", keep_ends=False), Cluster("**")])
    assert not log.touched()
    with pytest.raises(ValueError, match="matches no float Param"):
        apply(small, [Prune(path="**", sparsity=0.5)])
    same(again, small)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1}, r"bits from 2 to 8\. Got 1\."),
        ({"bits": 9}, r"bits from 2 to 8\. Got 9\."),
        ({"groups": 0}, r"groups of at least 1\. Got 0\."),
        ({"start": "forgy"}, r"start to be one of .* Got 'forgy'"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Cluster("**", **settings)


def test_weights_have_to_be_finite():
    model = made(Net)
    model.head.kernel.set_value(jnp.full((16, 6), jnp.nan))
    with pytest.raises(ValueError, match=r"finite weights\. Got NaN or inf in head"):
        apply(model, [Cluster("head")])
