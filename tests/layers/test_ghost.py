# SPDX-License-Identifier: Apache-2.0
"""GhostModule, GhostBottleneck, Fire: named parts and errors (numbers: the battery, timm)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from tests.layers.case import QUICKLY

pytestmark = pytest.mark.fast


def test_the_first_channels_are_the_primary_ones():
    module = layers.GhostModule(4, 5, ratio=3, rngs=nnx.Rngs(0))
    out: dict[str, jax.Array] = {}
    y = module(jax.random.normal(jax.random.key(0), (1, 3, 3, 4)), out=out)
    assert {k: v.shape[-1] for k, v in out.items()} == {"primary": 2, "cheap": 4}
    np.testing.assert_array_equal(y[..., :2], out["primary"])
    np.testing.assert_array_equal(y[..., 2:], out["cheap"][..., :3])


@pytest.mark.parametrize(
    ("sizes", "strides", "parts"),
    [
        ((6, 8, 6), 1, ["expand", "contract"]),
        ((6, 8, 4), 1, ["expand", "contract", "shortcut"]),
        ((6, 8, 6), 2, ["expand", "depthwise", "contract", "shortcut"]),
    ],
)
def test_the_bottleneck_names_the_parts_that_it_has(sizes, strides, parts):
    x, names = jnp.ones((1, 4, 4, 6)), []

    @partial(jax.jit, compiler_options=QUICKLY)
    def run():
        out: dict[str, jax.Array] = {}
        y = layers.GhostBottleneck(*sizes, strides=strides, rngs=nnx.Rngs(0))(x, out=out)
        names.extend(out)
        return y, out["contract"], out.get("shortcut", x)

    y, contract, shortcut = map(np.asarray, run())
    assert names == parts
    np.testing.assert_allclose(y, contract + shortcut, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "sizes", "options", "message"),
    [
        (layers.GhostModule, (4, 0), {}, "out_features=0"),
        (layers.GhostModule, (4, 6), {"ratio": 1}, "ratio of at least 2.*ratio=1"),
        (layers.GhostBottleneck, (4, 0, 4), {}, "out_features=0"),
        (layers.Fire, (4, 0, 4, 4), {}, r"at least 1. Got \(4, 0, 4, 4\)"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(layer, sizes, options, message):
    with pytest.raises(ValueError, match=message):
        layer(*sizes, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (layers.GhostModule, (4, 6)),
        (layers.GhostBottleneck, (4, 6, 4)),
        (layers.Fire, (4, 2, 3, 3)),
    ],
)
@pytest.mark.parametrize("shape", [(1, 4, 4, 5), (4, 4)])
def test_an_input_of_another_shape_is_an_error(layer, sizes, shape):
    with pytest.raises(ValueError, match=r"h w, 4\). Got \("):
        jax.eval_shape(lambda: layer(*sizes, rngs=nnx.Rngs(0))(jnp.ones(shape)))
