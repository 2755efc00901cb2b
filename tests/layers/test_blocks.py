# SPDX-License-Identifier: Apache-2.0
"""ConvBNAct, InvertedResidual, make_divisible: counts of the formulas, and torch's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers


def count(module) -> int:
    return sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("features", "strides", "ratio", "params", "shape"),
    [
        # in hidden + 9 hidden + hidden out + 2 (2 hidden + out), by hand
        ((8, 8), 1, 6, 8 * 48 + 9 * 48 + 48 * 8 + 2 * 104, (2, 7, 5, 8)),
        ((8, 12), 2, 6, 8 * 48 + 9 * 48 + 48 * 12 + 2 * 108, (2, 4, 3, 12)),
        ((8, 4), 1, 1, 9 * 8 + 8 * 4 + 2 * 12, (2, 7, 5, 4)),
    ],
)
def test_inverted_residual_has_its_formulas_parameters_and_shape(
    features, strides, ratio, params, shape
):
    def run():
        block = layers.InvertedResidual(
            *features, strides=strides, expand_ratio=ratio, rngs=nnx.Rngs(0)
        )
        assert count(block) == params
        assert (block.expand is None) == (ratio == 1)
        out: dict[str, jax.Array] = {}
        return block(jnp.ones((2, 7, 5, 8)), out=out), out

    y, out = jax.eval_shape(run)
    assert y.shape == shape
    assert set(out) == {"depthwise", "project"} | ({"expand"} if ratio != 1 else set())


@pytest.mark.fast
def test_the_skip_adds_the_input_where_shapes_allow():
    x = np.ones((1, 4, 4, 8), np.float32)

    @jax.jit
    def run():
        block = layers.InvertedResidual(8, 8, expand_ratio=2, rngs=nnx.Rngs(0))
        block.eval()
        out: dict[str, jax.Array] = {}
        return block(x, out=out), x + out["project"]

    np.testing.assert_array_equal(*run())


@pytest.mark.fast
def test_conv_bn_act_names_its_parts_():
    def run(*sizes, **options):
        names: list[str] = []

        def call():
            out: dict[str, jax.Array] = {}
            y = layers.ConvBNAct(*sizes, **options, rngs=nnx.Rngs(0))(
                jnp.ones((1, 9, 9, 3)), out=out
            )
            names.extend(out)
            return y

        return jax.jit(call)(), names

    y, names = run(3, 8, 5, 2)
    assert names == ["conv", "bn", "act"]
    assert y.shape == (1, 5, 5, 8)
    assert float(y.max()) <= 6
    assert run(3, 8, 1, act=None)[1] == ["conv", "bn"]


@pytest.mark.fast
def test_a_hidden_width_of_zero_is_an_error():
    with pytest.raises(ValueError, match=r"Got 0.01 x 8"):
        layers.InvertedResidual(8, 8, expand_ratio=0.01, rngs=nnx.Rngs(0))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("value", "divisor", "rounded"),
    # 32 x 0.35, 0.5, 0.75, 1.3, 1.4 as in the MobileNetV2 code; 1280 x 1.4; 10 % rule: 22 not 16
    [
        (11.2, 8, 16),
        (16, 8, 16),
        (24, 8, 24),
        (41.6, 8, 40),
        (44.8, 8, 48),
        (1792, 8, 1792),
        (3, 8, 8),
    ],
)
def test_make_divisible_gives_the_published_widths(value, divisor, rounded):
    assert layers.make_divisible(value, divisor) == rounded


@pytest.mark.fast
def test_make_divisible_never_falls_more_than_a_tenth():
    assert all(layers.make_divisible(v) >= 0.9 * v for v in range(1, 400))
    assert layers.make_divisible(3, 8, 16) == 16
    with pytest.raises(ValueError, match="Got 0"):
        layers.make_divisible(3, 0)


@pytest.mark.oracle
def test_a_training_step_of_the_block_is_torchs():
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    block = layers.InvertedResidual(4, 4, expand_ratio=3, rngs=nnx.Rngs(0))

    def part(source, groups, act):
        kernel = np.asarray(source.conv.kernel[...]).transpose(3, 2, 0, 1)
        out, per_group, size, _ = kernel.shape
        conv = torch.nn.Conv2d(
            per_group * groups, out, size, padding=size // 2, groups=groups, bias=False
        )
        conv.weight.data = torch.tensor(kernel)
        return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(out), *([torch.nn.ReLU6()] * act))

    theirs = torch.nn.Sequential(
        part(block.expand, 1, 1), part(block.depthwise, 12, 1), part(block.project, 1, 0)
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = tx + theirs(tx)
    (ty**3).sum().backward()

    graphdef, params, rest = nnx.split(block, nnx.Param, ...)

    def loss(params, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        y = model(x)
        return (y**3).sum(), (y, nnx.state(model, nnx.BatchStat))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (dparams, dx), (y, stats) = gradient(params, jnp.asarray(x))
    np.testing.assert_allclose(y, ty.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), atol=2e-3)
    for child, (conv, bn, *_) in zip(("expand", "depthwise", "project"), theirs, strict=True):
        dw = conv.weight.grad.numpy().transpose(2, 3, 1, 0)
        np.testing.assert_allclose(dparams[child].conv.kernel[...], dw, atol=5e-3)
        np.testing.assert_allclose(stats[child].bn.var[...], bn.running_var, atol=1e-5)
