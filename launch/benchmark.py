# SPDX-License-Identifier: Apache-2.0
"""Speed side by side: this library, plain flax and torch, alternating in one run.

python -m launch.benchmark --suite=models --against=torch
python -m launch.benchmark --suite=layers --filter='depthwise*/8,grouped*' --calls=15 --out=
"""

import sys

from absl import app, flags
from rich.console import Console

from efficient_layers import evidence, ops
from launch import quiet

_SUITE = flags.DEFINE_enum("suite", "models", sorted(evidence.SUITES), "What to measure.")
_AGAINST = flags.DEFINE_enum("against", "torch", ["torch", "none"], "The other side.")
_FILTER = flags.DEFINE_string("filter", "*", "Globs on WORKLOAD/MODE/BATCH, comma between.")
_OUT = flags.DEFINE_string("out", "docs/benchmarks", "Folder of CSV and Markdown; empty: none.")
_CALLS = flags.DEFINE_integer("calls", 30, "Timed calls of each side.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "CPU threads of each side.", lower_bound=1)
_PLAIN = flags.DEFINE_bool("plain", True, "Also measure flax's own layers in the same model.")

_KEEP = flags.DEFINE_bool("keep_freed_memory", False, "Run all sides with launch.train's flag.")


def main(argv: list[str]) -> None:
    """Prints each row when it is measured, then the table; writes both files."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Got {argv[1:]}.")
    if _KEEP.value:
        ops.keep_freed_memory()  # for all sides: it is the process's allocator
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        cases = evidence.select(_SUITE.value, _FILTER.value)
        evidence.set_threads(_THREADS.value)
        rows = []
        for row in evidence.run(
            cases,
            against=_AGAINST.value,
            with_plain=_PLAIN.value,
            calls=_CALLS.value,
            threads=_THREADS.value,
        ):
            rows.append(row)
            name = f"{row.workload}/{row.mode}/{row.batch}"
            console.print(f"{len(rows)}/{len(cases)} {name}: {row.ours_ms:.2f} ms")
    except (ValueError, ImportError, RuntimeError) as error:
        sys.exit(f"launch.benchmark: {error}")
    console.print(evidence.terminal(rows, f"{_SUITE.value} against {_AGAINST.value}"))
    if _OUT.value:
        for path in evidence.write(rows, _OUT.value, _SUITE.value, _AGAINST.value):
            console.print(f"wrote {path}")


if __name__ == "__main__":
    app.run(main)
