# SPDX-License-Identifier: Apache-2.0
"""LowRank against NumPy's SVD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, models
from tests.compress.test_apply import reloaded

KERNEL = np.random.default_rng(0).normal(size=(12, 8)) * np.logspace(0, -2, 8)


def model() -> nnx.Module:
    made = nnx.Sequential(nnx.Linear(12, 8, rngs=nnx.Rngs(0)))
    made.layers[0].kernel.set_value(jnp.asarray(KERNEL, jnp.float32))
    made.layers[0].bias.set_value(jnp.arange(8.0))
    return made


def truncated(rank: int) -> np.ndarray:
    u, s, v = np.linalg.svd(KERNEL, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@pytest.mark.parametrize("settings", [{"rank": 3}, {"energy": 0.9}, {"params": 0.7}])
def test_is_the_truncated_svd(settings):
    s = np.linalg.svd(KERNEL, compute_uv=False)
    shares = np.cumsum(s**2) / (s**2).sum()
    rank = settings.get("rank") or (
        int(np.argmax(shares >= 0.9)) + 1 if "energy" in settings else int(0.7 * 96 / 20)
    )
    small, log = compress.apply(model(), compress.LowRank("**", **settings))
    x = np.random.default_rng(1).normal(size=(5, 12))
    assert small.layers[0].rank == rank
    expected = x @ truncated(rank) + np.arange(8)
    np.testing.assert_allclose(small(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)
    assert f"rank {rank} of 8 keeps {shares[rank - 1]:.1%}" in log.rows[0].why


def test_refuses_a_rank_that_grows_the_layer():
    small, log = compress.apply(model(), compress.LowRank("**", rank=5))
    assert isinstance(small.layers[0], nnx.Linear)
    assert log.rows[0].why == ("rank 5 would take 100 weights in place of 96: it pays below rank 5")
    _, log = compress.apply(model(), compress.LowRank("**", energy=1.0))
    assert "rank 8 would take 160 weights" in log.rows[0].why
    _, log = compress.apply(model(), compress.LowRank("**", rank=9))
    assert log.rows[0].why == "rank 9 is outside of 1 to 8 for 12x8"


@pytest.mark.slow
def test_attention_by_glob():
    def base():
        return models.create(
            "vit_tiny_patch16_224", image_size=32, depth=2, num_classes=5, rngs=nnx.Rngs(0)
        )

    step = compress.LowRank("blocks/*/attention/*", rank=8)
    small, log = compress.apply(base(), step)
    assert len(log.touched()) == 8
    assert isinstance(small.blocks[1].attention.out, layers.LowRankLinear)
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    again = reloaded(base, small, log.edits)
    small.eval()
    again.eval()
    np.testing.assert_array_equal(again(x), small(x))


@pytest.mark.parametrize(
    "settings", [{}, {"rank": 2, "energy": 0.5}, {"energy": 0.0}, {"rank": 0}, {"params": 1.0}]
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match="LowRank expects"):
        compress.LowRank("**", **settings)


def test_weights_that_are_not_finite():
    broken = model()
    broken.layers[0].kernel.set_value(jnp.full((12, 8), jnp.nan))
    with pytest.raises(ValueError, match="NaN or inf in layers/0"):
        compress.apply(broken, compress.LowRank("**", rank=2))
