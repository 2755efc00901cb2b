# SPDX-License-Identifier: Apache-2.0
"""The environment is JSON and true of this process."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from efficient_layers.measure.environment import energy_meter, environment

pytestmark = pytest.mark.fast


def test_it_is_json_and_names_what_is_here():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    for package in ("jax", "jaxlib", "flax", "optax"):
        assert found["packages"][package] == importlib.metadata.version(package)
    assert found["device_count"] == jax.device_count()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["ram_bytes"] > 1e8
    assert found["date"].endswith("+00:00")
    assert found["energy_meter"] in ("none", "rapl", "nvml")


def test_relevant_variables_only(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_something")
    monkeypatch.setenv("A_SECRET", "x")
    assert environment()["variables"]["XLA_FLAGS"] == "--xla_something"
    assert "A_SECRET" not in environment()["variables"]


def test_the_revision_is_gits():
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        pytest.skip("no git checkout here")
    head = ["git", "-C", str(root), "rev-parse", "HEAD"]
    revision = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    assert environment()["git"]["revision"] == revision


def test_no_meter_is_called_none(monkeypatch):
    module = sys.modules["efficient_layers.measure.environment"]
    monkeypatch.setattr(module, "_RAPL", "/nowhere")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_meter() == "none"
