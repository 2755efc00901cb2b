# SPDX-License-Identifier: Apache-2.0
"""Speed side by side: this library, plain flax and torch, alternating in one run.

python -m launch.benchmark --suite=models --against=torch
python -m launch.benchmark --suite=layers --filter='depthwise*/8,grouped*' --calls=15 --out=
python -m launch.benchmark --suite=cards --filter='low_rank*'     # tables of docs/layers
python -m launch.benchmark --suite=attention_lengths --filter=256,512 --calls=5
python -m launch.benchmark --suite=compressed --filter='mobilenet_v2/*'
"""

import sys
from functools import partial
from pathlib import Path

from absl import app, flags
from rich.console import Console

from efficient_layers import evidence, ops
from efficient_layers.evidence import attention_lengths, cards, compressed_speed
from launch import quiet

_SUITES = sorted([*evidence.SUITES, "attention_lengths", "cards", "compressed"])
_SUITE = flags.DEFINE_enum("suite", "models", _SUITES, "What to measure.")
_AGAINST = flags.DEFINE_enum("against", "torch", ["torch", "none"], "The other side.")
_FILTER = flags.DEFINE_string("filter", "*", "Globs on WORKLOAD/MODE/BATCH, comma between.")
_OUT = flags.DEFINE_string("out", "docs/benchmarks", "Folder of CSV and Markdown; empty: none.")
_FOLDER = flags.DEFINE_string("cards", "docs/layers", "Folder of the cards (--suite=cards).")
_CALLS = flags.DEFINE_integer("calls", 30, "Timed calls of each side.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "CPU threads of each side.", lower_bound=1)
_PLAIN = flags.DEFINE_bool("plain", True, "Also measure flax's own layers in the same model.")
_KEEP = flags.DEFINE_bool("keep_freed_memory", True, "Run all sides with launch.train's flag.")


def main(argv: list[str]) -> None:
    """Measures one suite and writes its tables."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Got {argv[1:]}.")
    if _KEEP.value:
        ops.keep_freed_memory()  # for all sides: it is the process's allocator
    console = Console(width=None if sys.stdout.isatty() else 140)
    special = {
        "attention_lengths": (attention_lengths, f"{_OUT.value}/attention_lengths"),
        "cards": (cards, _FOLDER.value),
        "compressed": (compressed_speed, f"{_OUT.value}/compressed"),
    }
    try:
        evidence.set_threads(_THREADS.value)
        if _SUITE.value not in special:
            return _cases(console)
        suite, folder = special[_SUITE.value]
        suite.measure_all(_FILTER.value, Path(folder), calls=_CALLS.value, say=console.print)
    except (ValueError, ImportError, RuntimeError) as error:
        sys.exit(f"launch.benchmark: {error}")


def _cases(console: Console) -> None:
    cases = evidence.select(_SUITE.value, _FILTER.value)
    run = partial(evidence.run, calls=_CALLS.value, threads=_THREADS.value)
    rows, paths = [], list[Path]()
    for row in run(cases, against=_AGAINST.value, with_plain=_PLAIN.value):
        rows.append(row)
        name = f"{row.workload}/{row.mode}/{row.batch}"
        console.print(f"{len(rows)}/{len(cases)} {name}: {row.ours_ms:.2f} ms")
        if _OUT.value:  # after each row: an interrupted run leaves what it measured
            paths = [*evidence.write(rows, _OUT.value, _SUITE.value, _AGAINST.value)]
    console.print(evidence.terminal(rows, f"{_SUITE.value} against {_AGAINST.value}"))
    console.print(*(f"wrote {path}" for path in paths), sep="\n")


if __name__ == "__main__":
    app.run(main)
