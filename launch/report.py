# SPDX-License-Identifier: Apache-2.0
"""Set many runs against each other: one page with a Pareto plot, and the same in the terminal.

    python -m launch.report --workdirs=runs/b0,runs/b1 --out=compare.html
    python -m launch.report --workdirs='runs/*' --x=latency --y=quality --quality=test_accuracy

Exit codes: 0 done; 1 a report is missing or cannot be read (the message says how to make it).
"""

import sys

from absl import app, flags

from launch import quiet

_AXES = ("quality", "params", "macs", "weight_bytes", "latency")
_WORKDIRS = flags.DEFINE_list("workdirs", None, "Workdirs, or globs of workdirs, by commas.")
_OUT = flags.DEFINE_string("out", "compare.html", "Where the page goes.")
_QUALITY = flags.DEFINE_string("quality", "test_accuracy", "Which number of `quality` to compare.")
_X = flags.DEFINE_enum("x", "macs", _AXES, "First axis; the page lets the reader pick another.")
_Y = flags.DEFINE_enum("y", "quality", _AXES, "Second axis.")


def main(argv: list[str]) -> int:
    """Flags -> library."""
    quiet()
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    from efficient_layers.report import compare_workdirs

    try:
        compare_workdirs(
            _WORKDIRS.value or [], _OUT.value, quality=_QUALITY.value, x=_X.value, y=_Y.value
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    flags.mark_flag_as_required("workdirs")
    sys.exit(app.run(main))
