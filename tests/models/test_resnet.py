# SPDX-License-Identifier: Apache-2.0
"""ResNet: the CIFAR networks of section 4.2, option A, the zero start, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast

# Table 6: parameters in millions.
TABLE_6 = {"resnet20": "0.27", "resnet32": "0.46", "resnet56": "0.85"}
TINY = {"variant": "cifar20", "stem_features": 4, "stages": [[4, 1, 1], [8, 1, 2]]}


def params(name):
    model = nnx.eval_shape(lambda: el.models.create(name, rngs=nnx.Rngs(0)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_cifar_sizes_of_table_6():
    for name, printed in TABLE_6.items():
        assert f"{params(name) / 1e6:.2f}" == printed, name


@pytest.mark.slow
def test_option_a_keeps_every_second_position_and_adds_zeros():
    model = el.models.create("resnet", rngs=nnx.Rngs(0), zero_init_residual=True, **TINY)
    model.eval()
    out = {}
    model(jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 3)), jnp.float32), out=out)
    # Both residuals are zero at the start, so that the blocks pass on their shortcut.
    np.testing.assert_array_equal(out["blocks/0"], out["stem"])
    np.testing.assert_array_equal(out["blocks/1"][..., :4], out["stem"][:, ::2, ::2])
    assert not out["blocks/1"][..., 4:].any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "cifar21"}, r"no variant 'cifar21'. Did you mean 'cifar"),
        ({"block": "botleneck"}, r"no block 'botleneck'. Did you mean 'bottleneck'"),
        ({"act": "rely"}, r"no act 'rely'. Did you mean 'relu'"),
        ({"variant": "18", "groups": 32}, "take block='bottleneck'"),
        ({"num_classes": -1}, "Got num_classes=-1"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        el.models.create("resnet", rngs=nnx.Rngs(0), **fields)


def test_bad_images():
    model = nnx.eval_shape(lambda: el.models.create("resnet", rngs=nnx.Rngs(0), **TINY))
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\). Got \(1, 8, 8, 1\)"):
        model(jnp.ones((1, 8, 8, 1)))
