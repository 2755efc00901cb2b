# SPDX-License-Identifier: Apache-2.0
"""Which kernel a platform gets, seen in what is lowered for it; and torch's attention as oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops
from efficient_layers.ops.attention import dot_product_attention
from tests.ops.test_attention import CASES, arrays, inputs, loops


def lowered_for_tpu(n=128, **options) -> str:
    x = [jax.ShapeDtypeStruct((1, n, 2, 64), jnp.float32)] * 3
    with ops.lowering("tpu"):
        traced = jax.jit(lambda *x: dot_product_attention(*x, **options)).trace(*x)
        return traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("options", [{}, {"causal": True}])
def test_tpu_runs_its_flash_kernel(options):
    assert "tpu_custom_call" in lowered_for_tpu(**options)


@pytest.mark.parametrize(
    "options", [{"n": 100}, {"window": 3}, {"query_offset": 1}, {"slopes": np.ones(2, np.float32)}]
)
def test_tpu_computes_in_blocks_what_the_kernel_cannot(options):
    assert "tpu_custom_call" not in lowered_for_tpu(**arrays(options))


@pytest.mark.parametrize("name", ["plain", "causal", "window, causal", "window", "mask", "all"])
def test_gpu_form_is_the_loop(name):
    x, options = inputs(e=3), CASES[name]
    with ops.lowering("gpu"):
        y = dot_product_attention(*x, **arrays(options))
    np.testing.assert_allclose(y, loops(*x, **options), atol=2e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("causal", [False, True])
def test_torch_agrees_in_value_and_gradient(causal):
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    x = inputs(b=2, n=700, m=700, h=2, g=2, d=8, e=8)
    theirs = [torch.from_numpy(np.array(leaf.swapaxes(1, 2))).requires_grad_() for leaf in x]
    y = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)
    g = np.random.default_rng(1).normal(size=x[0].shape).astype(np.float32)
    y.backward(torch.from_numpy(g.swapaxes(1, 2).copy()))
    with ops.lowering("cpu"):
        ours, pull = jax.vjp(lambda *x: dot_product_attention(*x, causal=causal), *x)
    expected = [y.detach(), *(leaf.grad for leaf in theirs)]
    for got, want in zip((ours, *pull(jnp.asarray(g))), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy().swapaxes(1, 2), atol=2e-5)
