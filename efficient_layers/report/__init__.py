# SPDX-License-Identifier: Apache-2.0
"""Pages from plain JSON: the report of one run, and many runs compared.

Nothing here measures, loads a model or touches JAX: a dict goes in, HTML comes out.
"""

from efficient_layers.report.compare import compare_page
from efficient_layers.report.file import ReportError, read_report, write_report
from efficient_layers.report.headline import binomial_interval
from efficient_layers.report.pareto import dominated, front, hypervolume, nadir
from efficient_layers.report.run import run_page
from efficient_layers.report.runs import collect, folder_names, metrics
from efficient_layers.report.terminal import comparison
from efficient_layers.report.trade_off import trade_off
from efficient_layers.report.workdirs import compare_workdirs, find_workdirs

__all__ = [
    "ReportError",
    "binomial_interval",
    "collect",
    "compare_page",
    "compare_workdirs",
    "comparison",
    "dominated",
    "find_workdirs",
    "folder_names",
    "front",
    "hypervolume",
    "metrics",
    "nadir",
    "read_report",
    "run_page",
    "trade_off",
    "write_report",
]
