# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.ops.members import rows_times

ROWS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)


@pytest.mark.fast
def test_is_the_product() -> None:
    np.testing.assert_allclose(rows_times(ROWS, WEIGHTS[0]), ROWS @ WEIGHTS[0], rtol=1e-5)
    assert rows_times(jnp.zeros((0, 3)), WEIGHTS[0]).shape == (0, 4)


@pytest.mark.fast
def test_members_of_weights_have_a_product_each() -> None:
    together = jax.vmap(rows_times, (None, 0))
    np.testing.assert_allclose(together(ROWS, WEIGHTS), ROWS @ WEIGHTS, rtol=1e-5)
    dots = [e for e in jax.make_jaxpr(together)(ROWS, WEIGHTS).eqns if "dot" in str(e.primitive)]
    (_, batch) = dots[0].params["dimension_numbers"]
    assert batch == ((0,), (0,))


@pytest.mark.fast
def test_nothing_is_left_of_the_joining() -> None:
    gradient = jax.grad(lambda *both: (rows_times(*both) ** 2).sum(), (0, 1))
    text = jax.jit(gradient).lower(ROWS, WEIGHTS[0]).compile().as_text()
    assert "concatenate" not in text
    assert "pad(" not in text
