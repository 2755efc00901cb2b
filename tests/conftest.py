# SPDX-License-Identifier: Apache-2.0
"""One folder of compiled programs for the whole session: runs that repeat compile once.

Set before JAX is imported, and inherited by xdist's workers and by the processes tests start.
"""

import os
import shutil
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # an xdist worker, or the user's own cache
        return
    folder = tempfile.mkdtemp(prefix="efficient_layers_test_cache_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture
def no_compilation_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count compilations or need a process without a cache."""
    import jax

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)
