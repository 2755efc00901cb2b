# SPDX-License-Identifier: Apache-2.0
"""What a number was measured on and with: stands beside every result."""

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_VARIABLES = (
    "XLA_FLAGS",
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "OMP_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)
_RAPL = "/sys/class/powercap/intel-rapl:0/energy_uj"


def environment() -> dict[str, Any]:
    """Versions, device, processor, memory, system, revision and settings, JSON-able.

    `cores` are those this process may use; XLA's CPU backend runs on as many threads. `git` is None
    outside a checkout. `energy_meter` names what could be read here ("nvml", "rapl"), else "none".
    """
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": devices[0].platform,
        "device": device_name(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "cpu": cpu_name(),
        "cores": cores(),
        "ram_bytes": _ram_bytes(),
        "os": platform.platform(),
        "git": _git(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "energy_meter": energy_meter(),
    }


def device_name() -> str:
    """The default device as a person names it: platform and kind; for a CPU its model and cores."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"cpu: {cpu_name()}, {cores()} cores"
    return f"{device.platform}: {device.device_kind}"


def cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cpu_name() -> str:
    """The processor's model name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def energy_meter() -> str:
    """The energy counter that can be read on this machine: "nvml", "rapl" or "none"."""
    if os.access(_RAPL, os.R_OK):
        return "rapl"
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0))
    except Exception:  # no package, no driver, no such counter: all mean the same here
        return "none"
    return "nvml"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _git() -> dict[str, Any] | None:
    """Revision and whether tracked files differ from it, where this file lies in a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    revision = _output(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _output(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": bool(changes)}


def _output(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
