# SPDX-License-Identifier: Apache-2.0
"""Options for XLA's compiler: taken by it, and none where it would not know them."""

import os

import jax
import jax.numpy as jnp
import pytest

from efficient_layers.ops.compiler_options import compiler_options

pytestmark = pytest.mark.fast


def test_the_cpu_compiler_takes_them() -> None:
    options = compiler_options()
    assert options == {"xla_cpu_parallel_codegen_split_count": min(32, 2 * os.cpu_count())}
    y = jax.jit(lambda x: jnp.sin(x) @ x, compiler_options=options)(jnp.eye(2))
    assert jnp.allclose(y, jnp.sin(1.0) * jnp.eye(2))


def test_other_backends_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compiler_options() == {}
