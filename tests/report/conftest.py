# SPDX-License-Identifier: Apache-2.0
"""A complete report of schema 1 with made-up numbers, and a headless Chromium to open pages in."""

import copy
import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ENVIRONMENT = {"python": "3.11.7", "packages": {"jax": "0.10.2"}, "cores": 2, "git": None}


def _history(steps: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        fall = math.exp(-step / 200)
        records.append(
            {
                "step": step,
                "train/loss": 2.3 * fall + 0.1,
                "train/accuracy": 1 - 0.9 * fall,
                "learning_rate": 0.01 * (1 - step / steps),
                "grad_norm": 1 + fall,
                "examples_per_s": 5000 + step % 70,
                "input_wait": 0.01,
            }
        )
        if step % 100 == 0:
            records.append(
                {"step": step, "validation/loss": 2.4 * fall, "validation/accuracy": 1 - fall}
            )
    return records


def _layers(count: int, scale: float) -> list[dict[str, Any]]:
    return [
        {
            "name": f"blocks/{i}/conv",
            "kind": ("conv", "depthwise conv", "BatchNorm")[i % 3],
            "params": round(100 * (i + 1) * scale),
            "macs": round(10_000 * (i + 1) * scale) if i % 3 < 2 else 0,
            "activations": 640 if i % 3 < 2 else 0,
            "weight_bytes": round(400 * (i + 1) * scale),
            "shape": [3, 3, 8, 16],
            "note": "",
        }
        for i in range(count)
    ]


@pytest.fixture
def make_report() -> Callable[..., dict[str, Any]]:
    """make_report(name=, accuracy=, scale=, layers=, steps=) -> a fresh report."""

    def make(
        name: str = "net", accuracy: float = 0.98, scale: float = 1.0, layers: int = 9, steps=600
    ) -> dict[str, Any]:
        rows = _layers(layers, scale)
        total = {k: sum(r[k] for r in rows) for k in ("params", "macs", "activations")}
        times = {"median_ms": 0.4 * scale, "p10_ms": 0.35 * scale, "p90_ms": 0.6 * scale}
        sixteen = {key: 5 * value for key, value in times.items()}
        made = {
            "schema": 1,
            "model": name,
            "created": "2026-11-22T09:40:12+00:00",
            "quality": {"test_accuracy": accuracy, "test_examples": 360, "test_loss": 0.08},
            "cost": {**total, "weight_bytes": total["params"] * 4, "layers": rows},
            "latency": {
                "device": "cpu: some processor, 2 cores",
                "batch": {"16": sixteen, "1": times},
                "compile_s": 1.2,
            },
            "memory": {"argument_bytes": 4096, "peak_bytes": 123456, "device": None},
            "executed": {"dots": {"f32": 1}, "convolutions": {"f32": 6}},
            "training": {
                "seconds": 38.2,
                "examples_per_s": 5213.4,
                "steps": 600,
                "mfu": 0.213,
                "input_wait": 0.012,
            },
            "environment": ENVIRONMENT,
            "config": {"seed": 0, "data": {"name": "digits"}},
            "history": _history(steps),
        }
        return copy.deepcopy(made)

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Selenium driver of headless Chromium that records console and network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra [dev])")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver (apt-get install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()
