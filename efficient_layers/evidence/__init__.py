# SPDX-License-Identifier: Apache-2.0
"""Evidence: suites that measure this library side by side with torch and with plain flax."""

from efficient_layers.evidence.benchmark import Row, run, set_threads
from efficient_layers.evidence.cases import SUITES, Case, select
from efficient_layers.evidence.summary import summarise
from efficient_layers.evidence.table import markdown, terminal, write

__all__ = [
    "SUITES",
    "Case",
    "Row",
    "markdown",
    "run",
    "select",
    "set_threads",
    "summarise",
    "terminal",
    "write",
]
