# SPDX-License-Identifier: Apache-2.0
"""FoldBatchNorm: who feeds whom is found by tracing; logits stay to 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, models
from tests.compress.test_apply import logits, made, reloaded


def drawn(model: nnx.Module) -> nnx.Module:
    """Statistics and biases away from their trivial first values; eval mode."""
    rng = np.random.default_rng(0)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            n = module.num_features
            module.mean.set_value(jnp.asarray(rng.normal(size=n), jnp.float32))
            module.var.set_value(jnp.asarray(rng.uniform(0.5, 2, n), jnp.float32))
            for variable in (module.scale, module.bias):
                if variable is not None:
                    variable.set_value(jnp.asarray(rng.normal(size=n) + 1, jnp.float32))
        elif isinstance(getattr(module, "bias", None), nnx.Param):
            module.bias.set_value(jnp.asarray(rng.normal(size=module.bias.shape), jnp.float32))
    model.eval()
    return model


class Mixed(nnx.Module):
    """Pairs that fold, and four that only look like pairs. All have 6 channels."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(6, 6, (3, 3), strides=2, padding=((1, 1), (1, 1)), rngs=rngs)
        self.norm1 = nnx.BatchNorm(6, rngs=rngs)
        self.depthwise = layers.DepthwiseConv(6, 3, use_bias=False, rngs=rngs)
        self.after_depthwise = layers.BatchNorm(6, use_scale=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(6, rngs=rngs)  # before its convolution
        self.conv2 = nnx.Conv(6, 6, (1, 1), rngs=rngs)
        self.conv3 = nnx.Conv(6, 6, (1, 1), rngs=rngs)  # its output is added, too
        self.bn3 = nnx.BatchNorm(6, rngs=rngs)
        self.bn4 = nnx.BatchNorm(6, rngs=rngs)  # called twice
        self.standardised = layers.StandardizedConv(6, 6, (1, 1), rngs=rngs)
        self.bn5 = nnx.BatchNorm(6, rngs=rngs)
        self.linear = nnx.Linear(6, 5, rngs=rngs)
        self.bn6 = nnx.BatchNorm(5, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm1(self.conv1(x), use_running_average=True)
        x = jax.nn.relu(self.after_depthwise(self.depthwise(x)))
        x = self.conv2(jax.nn.relu(self.bn2(x)))
        y = jax.checkpoint(lambda x: self.conv3(x))(x)
        x = y + self.bn3(y)
        x = self.bn4(self.bn4(x))
        x = self.bn5(self.standardised(x)).mean((1, 2))
        return self.bn6(self.linear(x))


X = jax.random.normal(jax.random.key(1), (2, 9, 9, 6))


def base() -> nnx.Module:
    return drawn(made(Mixed))


def test_folds_what_may_be_folded_and_keeps_the_logits():
    model = base()
    small, log = compress.apply(model, compress.FoldBatchNorm(), example=X)
    np.testing.assert_allclose(logits(small, X), logits(model, X), atol=1e-5)
    folded = {row.path: row.why for row in log.touched()}
    assert folded == {
        "norm1": "folded into conv1",
        "after_depthwise": "folded into depthwise",
        "bn6": "folded into linear",
    }
    assert {row.path for row in log.skipped()} == {"bn2", "bn3", "bn4", "bn5"}
    assert isinstance(small.norm1, layers.Identity)
    assert isinstance(model.norm1, nnx.BatchNorm)
    np.testing.assert_array_equal(logits(reloaded(base, small, log.edits), X), logits(small, X))


def test_numbers_by_hand():
    model = nnx.Sequential(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
    linear, norm = model.layers
    linear.kernel.set_value(jnp.array([[4.0]]))
    linear.bias.set_value(jnp.array([1.0]))
    norm.epsilon = 1.0
    for variable, value in ((norm.mean, 3.0), (norm.var, 3.0), (norm.scale, 5.0), (norm.bias, 7.0)):
        variable.set_value(jnp.array([value]))
    small, _ = compress.apply(model, compress.FoldBatchNorm(), example=jnp.ones((2, 1)))
    assert float(small.layers[0].kernel[0, 0]) == 10  # 4 * 5 / sqrt(3 + 1)
    assert float(small.layers[0].bias[0]) == 2  # (1 - 3) * 5 / 2 + 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_families(name):
    def base():
        return models.create(name, num_classes=4, rngs=nnx.Rngs(0))

    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    model = drawn(base())
    small, log = compress.apply(model, compress.FoldBatchNorm(), example=x)
    assert not log.skipped()
    assert not any(isinstance(m, nnx.BatchNorm) for _, m in nnx.iter_modules(small))

    expected = logits(model, x)
    np.testing.assert_allclose(
        logits(small, x) / abs(expected).max(), expected / abs(expected).max(), atol=1e-5
    )
