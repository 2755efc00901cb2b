# SPDX-License-Identifier: Apache-2.0
"""Pages from plain JSON: the report of one run, and many runs compared.

Nothing here measures, loads a model or touches JAX: a dict goes in, HTML comes out.
"""

from efficient_layers.report.compare import compare_page
from efficient_layers.report.headline import binomial_interval
from efficient_layers.report.pareto import dominated, front, hypervolume, nadir
from efficient_layers.report.run import run_page
from efficient_layers.report.runs import collect, folder_names, metrics
from efficient_layers.report.terminal import comparison, show
from efficient_layers.report.trade_off import trade_off

__all__ = [
    "binomial_interval",
    "collect",
    "compare_page",
    "comparison",
    "dominated",
    "folder_names",
    "front",
    "hypervolume",
    "metrics",
    "nadir",
    "run_page",
    "show",
    "trade_off",
]
