# SPDX-License-Identifier: Apache-2.0
"""DropPath: which examples it drops, how often, and timm's scale."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3, 2)), jnp.float32)


@pytest.mark.fast
def test_rows_are_kept_where_the_keys_coin_says_so():
    key = jax.random.key(7)
    y = layers.DropPath(0.25)(X, rngs=key)
    kept = jax.random.uniform(key, (64,)) < 0.75  # what bernoulli is
    assert 30 < int(kept.sum()) < 62
    np.testing.assert_allclose(y, np.where(kept[:, None, None], X / 0.75, 0), rtol=1e-6)
    stream = nnx.Rngs(dropout=key)
    expected = layers.DropPath(0.25)(X, rngs=stream.dropout())
    np.testing.assert_array_equal(layers.DropPath(0.25)(X, rngs=nnx.Rngs(dropout=key)), expected)
    np.testing.assert_array_equal(
        layers.DropPath(0.25)(X, rngs=nnx.Rngs(key)), layers.DropPath(0.25)(X, rngs=nnx.Rngs(key))
    )


@pytest.mark.fast
@pytest.mark.parametrize("mode", ["row", "batch"])
def test_the_mean_is_kept_and_rows_are_dropped_together_in_mode_batch(mode):
    layer, ones = layers.DropPath(0.3, mode=mode), jnp.ones((16, 2))
    keys = jax.random.split(jax.random.key(0), 4000)
    y = np.asarray(jax.jit(jax.vmap(lambda key: layer(ones, rngs=key)))(keys))
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.7], rtol=1e-6)
    assert (y[..., 0] == y[..., 1]).all()
    share = (y[..., 0] > 0).mean(0)  # of 4000 coins: 0.7 +- 4.5 deviations
    np.testing.assert_allclose(share, 0.7, atol=4.5 * np.sqrt(0.21 / 4000))
    together = (y == y[:, :1]).all((1, 2)).mean()
    assert together == 1 if mode == "batch" else together < 0.02


@pytest.mark.fast
def test_eval_rate_0_and_rate_1():
    layer = layers.DropPath(0.5)
    layer.eval()
    assert layer(X) is X
    assert layers.DropPath(0.0)(X) is X
    y, slope = jax.value_and_grad(lambda x: layers.DropPath(1.0)(x, rngs=jax.random.key(0)).sum())(
        X
    )
    assert y == 0
    np.testing.assert_array_equal(slope, 0 * X)


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"rate in \[0, 1\]. Got 1.5"):
        layers.DropPath(1.5)
    with pytest.raises(ValueError, match=r"mode 'row' or 'batch'. Got 'rows'"):
        layers.DropPath(0.5, mode="rows")
    with pytest.raises(ValueError, match=r"rate=0.5 in train mode needs a key. Got rngs=None"):
        layers.DropPath(0.5)(X)
    with pytest.raises(ValueError, match=r"batch axis. Got a scalar"):
        layers.DropPath(0.5)(jnp.ones(()))
    with pytest.raises(TypeError, match="Got int32"):
        layers.DropPath(0.5)(jnp.ones((2, 3), jnp.int32))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_kept_rows_have_timms_scale(rate):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    # torchvision's compiled operators are absent beside a CPU-only torch: nothing to register.
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    timm = pytest.importorskip("timm.layers", reason="timm is the oracle; CI installs it")
    torch.manual_seed(0)
    theirs = timm.DropPath(rate)(torch.tensor(np.asarray(X))).numpy()
    ours = np.asarray(layers.DropPath(rate)(X, rngs=jax.random.key(0)))
    both = (ours != 0).all((1, 2)) & (theirs != 0).all((1, 2))
    assert both.sum() > 20
    np.testing.assert_allclose(ours[both], theirs[both], rtol=1e-6)
    for y in (ours, theirs):
        assert ((y == 0).all((1, 2)) | (y != 0).all((1, 2))).all()
