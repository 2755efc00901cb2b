# SPDX-License-Identifier: Apache-2.0
"""Cost, latency, memory, what XLA executes, the environment, and the report that joins them."""

import importlib
from typing import Any

from efficient_layers.measure.cost import Cost, LayerCost, cost
from efficient_layers.measure.environment import environment
from efficient_layers.measure.executed import Executed, executed
from efficient_layers.measure.latency import Latency, alternate, latency
from efficient_layers.measure.memory import compiled_memory, memory
from efficient_layers.measure.peak import matmul_peak, mfu, training_flops
from efficient_layers.measure.view import call, view

__all__ = [
    "Cost",
    "Executed",
    "Latency",
    "LayerCost",
    "alternate",
    "call",
    "compiled_memory",
    "cost",
    "environment",
    "executed",
    "latency",
    "matmul_peak",
    "memory",
    "mfu",
    "report",
    "training_flops",
    "view",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """The report draws pages, which nobody who only measures has to load."""
    if name not in ("report", "write_report"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module("efficient_layers.measure.report")
    # Importing it binds the module to `report` here: the function is what the name stands for.
    globals().update(report=module.report, write_report=module.write_report)
    return globals()[name]
