# SPDX-License-Identifier: Apache-2.0
"""What makes thousands of small compilations cheap: tests spend most of their time on them.

Set before JAX is imported, and inherited by xdist's workers and by the processes tests start.
"""

import gc
import importlib.metadata
import os
import shutil
import tempfile

import pytest

# A program of one operation compiles in 17 ms of CPU time for 25: loops come from XLA's older
# emitters, and LLVM gets one module. JAX 0.11 and later know the first option no more. The slow
# tier, the battery and the newest Python test what users' programs are compiled with.
QUICK_COMPILER = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if "not slow" in config.option.markexpr and _version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{QUICK_COMPILER} {os.environ.get('XLA_FLAGS', '')}".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # One folder of compiled programs for the whole session: what repeats compiles once.
        folder = tempfile.mkdtemp(prefix="efficient_layers_test_cache_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules and tests stay to the end: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(trylast=True)  # after the fixtures
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A file's models and programs go with it: they hang in cycles, seldom looked for."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.fixture
def no_compilation_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count compilations or need a process without a cache."""
    import jax

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)
