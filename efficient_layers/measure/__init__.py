# SPDX-License-Identifier: Apache-2.0
"""Cost, latency, memory, what XLA executes, the environment, and the report that joins them."""

from efficient_layers.measure.cost import Cost, LayerCost, cost
from efficient_layers.measure.environment import environment
from efficient_layers.measure.executed import Executed, executed
from efficient_layers.measure.latency import Latency, alternate, latency
from efficient_layers.measure.memory import compiled_memory, memory
from efficient_layers.measure.peak import matmul_peak, mfu, training_flops
from efficient_layers.measure.program import Program, compiled_view
from efficient_layers.measure.report import read_report, report, write_report
from efficient_layers.measure.view import call, view

__all__ = [
    "Cost",
    "Executed",
    "Latency",
    "LayerCost",
    "Program",
    "alternate",
    "call",
    "compiled_memory",
    "compiled_view",
    "cost",
    "environment",
    "executed",
    "latency",
    "matmul_peak",
    "memory",
    "mfu",
    "read_report",
    "report",
    "training_flops",
    "view",
    "write_report",
]
