# SPDX-License-Identifier: Apache-2.0
"""Python children for tests of signals, kills, limits and device counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Files of train/ are imported without their packages' __init__: 1 s instead of 4 s a child.
_BARE = f"""
import sys, types
for name in ("efficient_layers", "efficient_layers.train"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{str(ROOT)!r} + "/" + name.replace(".", "/")]
"""


def start(code: str, *arguments: str, devices: int = 1) -> subprocess.Popen[str]:
    """A child that runs `code` on `devices` virtual CPU devices, its output in pipes."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", _BARE + code, *arguments],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What else it prints on its two outputs, once it has ended."""
    try:
        return process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()


def output(process: subprocess.Popen[str]) -> str:
    """What it prints; it must succeed."""
    out, error = end(process)
    assert process.returncode == 0, error
    return out
